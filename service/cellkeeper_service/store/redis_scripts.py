"""Runs a script over many keys: a call for each group of keys, every server's calls in one round trip.

All servers are sent to before the first is read from, so a tick takes as long as the slowest of them. What became
unknown on one connection is unknown for the items on that connection only. Calls that were certainly not run are
tried again where the servers say, in at most ROUNDS rounds, none begun later than twice the timeout: a server that
hangs takes the whole of the first, and the items of the others have a right to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from time import monotonic, sleep
from typing import Any, NamedTuple

import redis

from cellkeeper_service.store.redis_exchange import Exchange
from cellkeeper_service.store.redis_failures import Refused, Unknown, not_run, text_of
from cellkeeper_service.store.redis_link import Link, Sent, bulk, packed
from cellkeeper_service.store.redis_servers import Servers
from cellkeeper_service.store.redis_wire import Wire

ROUNDS = 6  # a moving slot takes five: its keys together, one by one, MOVED or ASK, NOSCRIPT, and again
PAUSE_S = 0.02
ROLE, PRIMARY = packed("ROLE"), (b"master",)


@dataclass(frozen=True, slots=True)
class Script:
    """A server-side script. call: the SHA-1 that it is called by, as an argument."""

    text: bytes
    call: bytes


@cache
def script(name: str) -> Script:
    """The script `name`.lua of this package."""
    text = files("cellkeeper_service.store").joinpath(f"{name}.lua").read_bytes()
    return Script(text, bulk(sha1(text).hexdigest().encode()))


class Item(NamedTuple):
    """One key and its part of the script's arguments, as Redis takes them (`bulk`), one after another, and how many."""

    key: bytes
    arguments: bytes
    words: int


class _Call(NamedTuple):
    """Items that go together. link: where to, None: to the server that has the group."""

    items: tuple[int, ...]
    group: int
    link: Link | None = None
    asking: bool = False
    avoid: Link | None = None  # it could not be reached a moment ago


class ScriptRun:
    """One script over `items`.

    leading: arguments before those of the items, in every call, and how many: as an Item's.
    wait: (replicas, milliseconds) of a WAIT behind each server's calls, or None.
    timeout_s: the servers'; no call is tried again after twice as long.
    replicas: after `answers`, where `wait` was asked: what WAIT gave, by the item's number.
    """

    def __init__(
        self,
        servers: Servers,
        which: Script,
        items: Sequence[Item],
        leading: tuple[bytes, int] = (b"", 0),
        wait: tuple[int, int] | None = None,
        timeout_s: float = 1.0,
    ) -> None:
        self._servers = servers
        self._which = which
        self._items = items
        self._leading = leading
        self._wait = wait
        self.replicas: dict[int, Any] = {}
        self._unloaded: set[Link] = set()  # servers that do not know the script
        self._answers: list[Any] = [Refused("Redis was not asked")] * len(items)
        self._again: list[_Call] = []
        self._pause = False
        self._rounds = 0
        self._deadline = monotonic() + 2 * timeout_s

    def begin(self, link: Link, wire: Wire) -> Exchange:
        """Sends the first round without waiting, all of it to this server, on a connection of its at rest. What comes
        of it goes to `read`; `answers` does what is left then."""
        self._rounds = 1
        return Exchange(link, wire, self._commands(link, [self._whole()]))

    def read(self, link: Link, replies: list[Any]) -> None:
        """Takes the replies to what was begun."""
        self._read(link, [self._whole()], replies)

    def answers(self) -> list[Any]:
        """One for each item, in order: the script's, or Refused, or Unknown. Never raises a StoreError."""
        if self._rounds == 0:
            self._again = self._by_group()
        while self._again and self._rounds < ROUNDS and not (self._rounds and monotonic() > self._deadline):
            if self._pause:
                sleep(PAUSE_S)
            calls, self._again, self._pause = self._again, [], False
            self._rounds += 1
            self._servers.refresh()
            self._round(calls)
        return self._answers

    def _whole(self) -> _Call:
        return _Call(tuple(range(len(self._items))), 0)

    def _by_group(self) -> list[_Call]:
        groups: dict[int, list[int]] = {}
        for number, item in enumerate(self._items):
            groups.setdefault(self._servers.group(item.key), []).append(number)
        return [_Call(tuple(numbers), group) for group, numbers in groups.items()]

    def _round(self, calls: list[_Call]) -> None:
        """Sends every call, then reads every answer."""
        by_link: dict[Link, list[_Call]] = {}
        for call in calls:
            try:
                link = call.link or self._servers.link(call.group)
            except Refused as error:
                self._settle(call, error)
                continue
            if link is not call.avoid:  # else its items stay refused
                by_link.setdefault(link, []).append(call)
        sent: list[tuple[Link, list[_Call], Sent]] = []
        try:
            for link, mine in by_link.items():
                pending = self._send(link, mine)
                if pending is not None:
                    sent.append((link, mine, pending))
            for link, mine, pending in sent:
                self._read(link, mine, pending.replies())
        finally:
            for _, _, pending in sent:
                pending.abandon()

    def _send(self, link: Link, calls: list[_Call]) -> Sent | None:
        """None where that failed; the calls are dealt with then."""
        try:
            return link.send(*self._commands(link, calls))
        except Refused as error:
            for call in calls:
                self._not_run(call, link, error)
        except Unknown as error:
            self._servers.lost(link)
            for call in calls:
                self._settle(call, error)
        return None

    def _commands(self, link: Link, calls: list[_Call]) -> list[bytes]:
        """Every command packed. The scripts' are put together from parts that are packed already: a library that
        looks at each of a thousand arguments takes longer than Redis does."""
        commands = []
        if link in self._unloaded:
            commands.append(packed("SCRIPT", "LOAD", self._which.text))
        leading, leading_count = self._leading
        for call in calls:
            if call.asking:
                commands.append(packed("ASKING"))
            items = [self._items[number] for number in call.items]
            count = 3 + len(items) + leading_count + sum([item.words for item in items])
            words = [b"*%d\r\n" % count, bulk(b"EVALSHA"), self._which.call, bulk(b"%d" % len(items))]
            words += [bulk(item.key) for item in items]
            words.append(leading)
            words += [item.arguments for item in items]
            commands.append(b"".join(words))
        if self._servers.asks_role:
            commands.append(ROLE)
        if self._wait is not None:
            commands.append(packed("WAIT", *self._wait))
        return commands

    def _read(self, link: Link, calls: list[_Call], replies: list[Any]) -> None:
        if isinstance(replies[-1], Unknown):
            self._servers.lost(link)
        at = 1 if link in self._unloaded else 0
        self._unloaded.discard(link)
        replicas = None if self._wait is None else replies[-1]
        role = replies[-1 if self._wait is None else -2] if self._servers.asks_role else PRIMARY
        for call in calls:
            at += call.asking
            reply = replies[at]
            at += 1
            if not isinstance(reply, Exception) and (isinstance(role, Exception) or role[0] != PRIMARY[0]):
                # A replica answers reads from what it has, and what it took as a primary is lost.
                self._servers.lost(link)
                self._settle(call, Unknown(f"the server did not say that it is a primary, but {role!s:.80}"))
            elif not isinstance(reply, Exception):
                for number, answer in zip(call.items, reply, strict=True):
                    self._answers[number] = answer
                if self._wait is not None:
                    self.replicas.update(dict.fromkeys(call.items, replicas))
            elif isinstance(reply, redis.exceptions.NoScriptError):
                self._unloaded.add(link)
                self._settle(call, Refused(f"Redis refused: {text_of(reply)}"))
                self._again.append(call._replace(link=link))
            elif isinstance(reply, Unknown):
                self._settle(call, reply)
            elif not_run(reply):
                self._not_run(call, link, reply)
            else:
                self._settle(call, Unknown(f"the script failed: {text_of(reply)}"))

    def _not_run(self, call: _Call, link: Link, error: Exception) -> None:
        """Refused, unless another round goes better."""
        unreachable = isinstance(error, Refused)
        self._settle(call, error if unreachable else Refused(f"Redis refused: {text_of(error)}"))
        detour = self._servers.detour(link, error)
        if detour is None:
            return
        self._pause |= detour.pause
        if detour.singly and len(call.items) > 1:
            self._again += [call._replace(items=(number,), link=link) for number in call.items]
        else:
            avoid = link if unreachable else None
            self._again.append(_Call(call.items, call.group, detour.link, detour.asking, avoid))

    def _settle(self, call: _Call, error: Exception) -> None:
        for number in call.items:
            self._answers[number] = error
