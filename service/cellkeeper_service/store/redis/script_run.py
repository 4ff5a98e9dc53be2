"""Runs a script over many keys: one call per group of keys, all of a server's calls in one round trip.

Everything is sent to all servers before the first reply is read, so a tick takes as long as the slowest server. A
failed connection makes only its own items unknown. Calls that certainly did not run are retried where
`Servers.detour` says, in at most ROUNDS rounds, none of which begins later than twice the timeout: a server that hangs
takes up the whole first timeout, and the items of the others are due another round.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any, NamedTuple

import redis

from .commits import Item, Words
from .failures import Refused, Unknown, Unreached, not_run, refusal, text_of
from .keys import mark_key
from .link import Link, Sent, bulk, packed
from .script import of_text, script
from .servers import Servers
from .wire import Wire

_logger = logging.getLogger(__name__)

ROUNDS = 6  # a migrating slot takes five: its keys together, one by one, MOVED or ASK, NOSCRIPT, and again
PAUSE_S = 0.02
ROLE, PRIMARY = packed("ROLE"), (b"master",)
_EVALSHA = bulk(b"EVALSHA")
_PUSH = of_text(b"#!lua flags=allow-oom\nreturn redis.call('RPUSH', KEYS[1], '')")


class _Call(NamedTuple):
    """Items that one script call carries. link: the server to send it to; None: the one that has the group."""

    items: tuple[int, ...]
    group: int
    link: Link | None = None
    asking: bool = False
    avoid: Link | None = None  # was unreachable a moment ago


class ScriptRun:
    """One run of the script `name`.lua over `items`.

    apart: each item is a call of its own.
    wait: (replicas, milliseconds) of a WAIT after each server's calls, or None.
    replicas: the reply to WAIT by the item's number, or the error that kept it from meaning anything; filled in by
        `answers` if `wait` was given.
    """

    def __init__(
        self, servers: Servers, name: str, items: Sequence[Item], apart: bool, wait: tuple[int, int] | None
    ) -> None:
        self._servers = servers
        self._which = script(name)
        self._items = items
        self._writes = name == "write"
        self._apart = apart
        self._wait = wait
        self.replicas: dict[int, Any] = {}
        self._unloaded: set[Link] = set()  # servers that do not know the script
        self._answers: list[Any] = [Unreached("Redis was not asked")] * len(items)
        self._again: list[_Call] = []
        self._pause = False
        self._rounds = 0
        self._deadline = monotonic() + 2 * servers.timeout_ms / 1000.0

    def begin(self, link: Link, wire: Wire) -> list[bytes]:
        """Returns the commands, packed, of a first round that goes to this server alone, on one of its connections.

        Send them, and pass the replies to `read`; `answers` then does what is left.
        """
        self._rounds = 1
        return self._commands(link, wire, [self._whole()])

    def read(self, link: Link, wire: Wire, replies: list[Any]) -> None:
        """Takes the replies to the commands of `begin`."""
        self._read(link, wire, [self._whole()], replies)

    def answers(self) -> list[Any]:
        """Returns one answer for each item, in order: the script's, Refused or Unknown. Never raises a StoreError."""
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
        if self._apart:
            return [_Call((number,), self._servers.group(item.key)) for number, item in enumerate(self._items)]
        groups: dict[int, list[int]] = {}
        for number, item in enumerate(self._items):
            groups.setdefault(self._servers.group(item.key), []).append(number)
        return [_Call(tuple(numbers), group) for group, numbers in groups.items()]

    def _round(self, calls: list[_Call]) -> None:
        """Sends every call, then reads every reply."""
        by_link: dict[Link, list[_Call]] = {}
        for call in calls:
            try:
                link = call.link or self._servers.link(call.group)
            except Refused as error:
                self._settle(call, error)
                continue
            if link is not call.avoid:  # otherwise its items stay refused
                by_link.setdefault(link, []).append(call)
        sent: list[tuple[Link, Wire, list[_Call], Sent]] = []
        try:
            for link, mine in by_link.items():
                try:
                    wire = link.take()
                except Refused as error:
                    for call in mine:
                        self._not_run(call, link, error)
                    continue
                pending = self._send(link, wire, mine)
                if pending is not None:
                    sent.append((link, wire, mine, pending))
            for link, wire, mine, pending in sent:
                self._read(link, wire, mine, pending.replies())
        finally:
            for *_, pending in sent:
                pending.abandon()

    def _send(self, link: Link, wire: Wire, calls: list[_Call]) -> Sent | None:
        """Sends the calls. Returns None if that failed; the calls are settled then."""
        try:
            return link.send(wire, *self._commands(link, wire, calls))
        except Unknown as error:
            self._servers.lost(link)
            for call in calls:
                self._settle(call, error)
        return None

    def _commands(self, link: Link, wire: Wire, calls: list[_Call]) -> list[bytes]:
        """Returns every command, packed. Script calls are joined from packed parts, because a library that encodes a
        thousand arguments one by one takes longer than Redis takes to execute them."""
        commands = []
        if link in self._unloaded:
            commands.append(packed("SCRIPT", "LOAD", self._which.text))
        peer = bulk((b"0" if wire.peer.has_written else b"1") + wire.peer.run)
        for call in calls:
            asking = [packed("ASKING")] if call.asking else []
            items = [self._items[number] for number in call.items]
            more = _with_more_calls(items)
            for item in more:
                for words in item.before:
                    commands += [*asking, self._command(peer, [item], [words])]
            commands += [*asking, self._command(peer, items, [item.words for item in items])]
            trimmed = [item for item in more if item.trim is not None]
            if trimmed:
                commands += [*asking, self._command(peer, trimmed, [item.trim for item in trimmed if item.trim])]
            for item in more:
                for words in item.after:
                    commands += [*asking, self._command(peer, [item], [words])]
        if self._marks:
            commands += _mark(calls[0], items[0].key)
        if self._servers.asks_role:
            commands.append(ROLE)
        if self._wait is not None:
            commands.append(packed("WAIT", *self._wait))
        return commands

    @property
    def _marks(self) -> bool:
        """Whether a WAIT needs a write to wait for, because the calls make none: WAIT waits for its connection's own
        last write, and so for everything before it."""
        return self._wait is not None and not self._writes

    def _command(self, peer: bytes, items: list[Item], words: list[Words]) -> bytes:
        """Packs one call of the script. docs/adr/203 says which items may share a call."""
        kinds = {one.kind for one in words}
        kind = kinds.pop() if len(kinds) == 1 else b""
        count = 5 + len(items) + sum([one.number for one in words]) + (0 if kind else len(words))
        parts = [b"*%d\r\n" % count, _EVALSHA, self._which.call, bulk(b"%d" % len(items))]
        parts += [bulk(item.key) for item in items]
        parts += [peer, bulk(kind)]
        parts += [one.packed for one in words] if kind else [bulk(one.kind) + one.packed for one in words]
        return b"".join(parts)

    def _read(self, link: Link, wire: Wire, calls: list[_Call], replies: list[Any]) -> None:
        """Takes the replies to the commands that `_commands` returned for these calls."""
        if isinstance(replies[-1], Unknown):
            self._servers.lost(link)
        at = 1 if link in self._unloaded else 0
        self._unloaded.discard(link)
        replicas = None if self._wait is None else replies[-1]
        role = replies[-1 if self._wait is None else -2] if self._servers.asks_role else PRIMARY
        if self._marks:
            first = len(replies) - 1 - self._servers.asks_role - (5 if calls[0].asking else 3)
            replicas = next((reply for reply in replies[first:] if isinstance(reply, Exception)), replicas)
        for call in calls:
            reply, at = self._reply_of(call, replies, at)
            if isinstance(reply, Exception):
                self._failed(call, link, reply)
            elif isinstance(role, Exception) or role[0] != PRIMARY[0]:
                # A replica answers reads from what it has, and the writes that it took while still a primary are lost.
                self._servers.lost(link)
                self._settle(call, Unknown(f"the server did not report the role of a primary, but {role!s:.80}"))
            else:
                for number, answer in zip(call.items, reply, strict=True):
                    self._answers[number] = answer
                wire.peer.has_written |= self._writes and not self._apart and 1 in reply
                if self._wait is not None:
                    self.replicas.update(dict.fromkeys(call.items, replicas))

    def _reply_of(self, call: _Call, replies: list[Any], at: int) -> tuple[Any, int]:
        """Returns the reply to the call's script, and where those to the next call begin. at: where its own do."""
        apart = 2 if call.asking else 1  # replies per command: ASKING has one of its own
        more = _with_more_calls([self._items[number] for number in call.items])
        at += apart * sum([len(item.before) for item in more]) + call.asking
        reply, after = replies[at], at + 1
        trims = any(item.trim is not None for item in more)
        end = after + apart * (trims + sum([len(item.after) for item in more]))
        if not isinstance(reply, Exception) and 1 in reply:  # otherwise there was no commit
            _warn_of(replies[after + call.asking : end : apart])
        return reply, end

    def _failed(self, call: _Call, link: Link, error: Exception) -> None:
        """Settles a call of which one reply was an error, and schedules it again if it did not run."""
        if isinstance(error, redis.exceptions.NoScriptError):
            self._unloaded.add(link)
            self._settle(call, Refused(f"Redis refused: {text_of(error)}"))
            self._again.append(call._replace(link=link))
        elif isinstance(error, Unknown):
            self._settle(call, error)
        elif not_run(error):
            self._not_run(call, link, error)
        else:
            self._settle(call, Unknown(f"the script failed: {text_of(error)}"))

    def _not_run(self, call: _Call, link: Link, error: Exception) -> None:
        """Settles the call as Refused, and schedules it again if another round may succeed."""
        unreachable = isinstance(error, Refused)
        self._settle(call, error if unreachable else refusal(error))
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


def _mark(call: _Call, key: bytes) -> list[bytes]:
    """Returns writes that leave nothing behind, to a key in the slot of `key`.

    They are two calls, because Redis executes half a transaction after a crash (docs/adr/203), and the first is a
    script, because a server whose memory is full refuses RPUSH by itself: then sessions could not even be deleted.
    """
    mark = mark_key(key)
    asking = [packed("ASKING")] if call.asking else []
    push = packed("EVALSHA", _PUSH.sha, 1, mark)
    return [packed("SCRIPT", "LOAD", _PUSH.text), *asking, push, *asking, packed("UNLINK", mark)]


def _with_more_calls(items: Sequence[Item]) -> list[Item]:
    """Returns the items that need further calls, before or after the one that all share: hardly ever any."""
    return [item for item in items if item.trim is not None or item.before or item.after]


def _warn_of(replies: list[Any]) -> None:
    """Warns of failed commands after a commit: the record is correct, but untrimmed or without a TTL until the next."""
    for reply in replies:
        if isinstance(reply, Exception) or any(isinstance(answer, list) for answer in reply):
            _logger.warning("Redis did not trim a record, or set its TTL, after a commit: %s", reply)
