"""What write.lua and load.lua do to the lists, in Python; test_layouts.py compares it with the scripts themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.domain.store import Commit, Delete, StoreError
from cellkeeper_service.store.redis import layout as redis_layout
from cellkeeper_service.store.redis.commits import Item, Words, commit_item, delete_item
from cellkeeper_service.store.redis.keys import redis_key
from cellkeeper_service.store.redis.layout import FIXED_BYTES, mark_of, moving_of, standing_header

from .redis_lists import NOTHING, Command, Elements, Lists, Write
from .sequential_model import Violation

Answer = int | bytes | tuple[bytes, bytes]
Call = list[tuple[bytes, list[bytes]]]  # one run of the script: keys, and the words for each
Calls = tuple[list[Call], Call, list[Call]]  # the runs before the one that counts, that one, and those after it


class Peer(NamedTuple):
    """What the scripts know of their connection: whether it has written nothing yet, the run of Redis, and the time of
    each key's clock, in ms; 0 if it is not here."""

    first_write: bool
    run: bytes
    clocks: Mapping[bytes, int] = {}

    def is_over(self, name: bytes, deadline: int | None) -> bool:
        """Returns whether a deadline of this key has passed."""
        return deadline is not None and deadline <= self.clocks.get(name, 0)


_BASE, _WHOLE = b"BW"
FOR_EVER = 10**14  # ms: what Redis accepts as a TTL


def read(key: SessionKey, elements: Elements) -> Record | StoreError:
    """Returns what the product reads in this list, which most worlds share with many others."""
    return _read(key, elements)


@cache
def _read(key: SessionKey, elements: Elements) -> Record | StoreError:
    return redis_layout.read_elements(key, elements)


def forget() -> None:
    """Forgets what was read: a switch may change how lists are read."""
    _read.cache_clear()


def header(elements: Elements) -> Header | None:
    """Returns the header of the record in this list. Raises Violation if the list holds none."""
    return Header.unpack(_standing(elements)) if elements else None


def commit_calls(commits: Sequence[Commit]) -> Calls:
    """Returns the runs of the script before the one that commits, that one, and those after it."""
    items = [commit_item(commit) for commit in commits]
    return _calls(items)


def delete_calls(delete: Delete) -> Calls:
    return _calls([delete_item(redis_key(delete.key), delete.generation)])


def run(lists: Lists, call: Call, peer: Peer) -> tuple[list[Answer], list[Write]]:
    """Runs write.lua and changes `lists`. Returns the answers, and the writes in order."""
    script = _Run(lists, peer)
    answers = [script.item(name, *words) for name, words in call]
    if peer.first_write and script.pushed is not None:
        script.say_again(script.pushed.name, script.pushed.values[-1])
    return answers, script.writes


def load(lists: Lists, names: Sequence[bytes], touched: Collection[bytes], peer: Peer) -> list[Write]:
    """Returns the writes of load.lua, which reads these records; changes `lists`. touched: those that are used."""
    script = _Run(lists, peer)
    for name in names:
        elements = script.elements(name)
        if elements and run_of(elements[-1]) != peer.run:
            for _ in range(1 + peer.first_write):
                script.say_again(name, elements[-1])
        if elements and name in touched and lists[name].deadline is not None and (ttl := ttl_of(_standing(elements))):
            script.refresh(name, ttl)
    return script.writes


def ttl_of(packed: bytes) -> int:
    """Returns the TTL that a header asks for, in ms; 0: none."""
    return min(Header.unpack(packed).ttl_ms, FOR_EVER)


def run_of(element: bytes) -> bytes:
    """Returns the run of Redis in which the element was pushed."""
    return element[1:5] if element[0] == _BASE else element[8:12]


def again(last: bytes, run: bytes) -> bytes:
    """Returns an element with the same meaning, in this run."""
    if last[0] == _BASE:
        moving = last[5 + FIXED_BYTES :]
        return b"S\1\0\0" + mark_of(moving) + run + moving
    return last[:8] + run + last[12:]


def words_of(packed: Words) -> list[bytes]:
    """Returns the kind, and the arguments one by one."""
    found, rest = [packed.kind], packed.packed
    for _ in range(packed.number):
        size, _, rest = rest.partition(b"\r\n")
        end = int(size[1:])
        found.append(rest[:end])
        rest = rest[end + 2 :]
    return found


def _calls(items: Sequence[Item]) -> Calls:
    before = [[(item.key, words_of(one))] for item in items for one in item.before]
    trims = [(item.key, words_of(item.trim)) for item in items if item.trim is not None]
    after = [[(item.key, words_of(one))] for item in items for one in item.after]
    after = [trims, *after] if trims else after
    return before, [(item.key, words_of(item.words)) for item in items], after


def base_of(elements: Elements) -> int | None:
    """Returns the index of the base that the last element refers to."""
    return redis_layout._base_of(elements)


def _standing(elements: Elements) -> bytes:
    at = base_of(elements)
    header = None if at is None else standing_header(elements[-1], elements[at])
    if header is None:
        raise Violation("the list ends with nothing that belongs to a record")
    return header


class _Run:
    def __init__(self, lists: Lists, peer: Peer) -> None:
        self._lists = lists
        self._peer = peer
        self._run = peer.run
        self.writes: list[Write] = []
        self.pushed: Write | None = None

    def write(self, write: Write) -> None:
        write.apply(self._lists)
        self.writes.append(write)

    def elements(self, name: bytes) -> Elements:
        """Returns the list's elements. Redis deletes a key first whose time has passed."""
        elements, deadline = self._lists.get(name, NOTHING)
        if self._peer.is_over(name, deadline):
            self.write(Write(name, Command.DEL))
            return ()
        return elements

    def item(self, name: bytes, kind: bytes, *words: bytes) -> Answer:
        if kind == b"ttl":
            ttl, kind, *others = words
            answer = self.item(name, kind, *others)
            if answer == 1:
                self.refresh(name, min(int.from_bytes(ttl, "little"), FOR_EVER))
            return answer
        elements = self.elements(name)
        if not elements:
            return self._push(name, words[2], words[1], self._base(words[0])) if kind == b"create" else 0
        standing = _standing(elements)
        moving = moving_of(standing)
        match kind:
            case b"create":
                return standing
            case b"append" | b"whole":
                return self._append(name, kind, *words[1:]) if words[0] == moving else standing
            case b"replace":
                new = words[3], words[2], self._base(words[1])
                return self._push(name, *new) if words[0] == moving else standing
            case b"delete":
                if standing[:16] != words[0]:
                    return standing
                self.write(Write(name, Command.UNLINK))
            case b"trim":
                base = b"B" + self._run
                if elements[-1].startswith(base):
                    self.write(Write(name, Command.KEEP_LAST_THREE))
                elif elements[-1][:1] == b"S" and elements[-2].startswith(base):
                    self.write(Write(name, Command.KEEP_LAST_FOUR))
            case b"expire":
                if ttl_of(standing):
                    self.refresh(name, ttl_of(standing))
            case b"persist":
                if words[0] != moving:
                    return standing
                self._expire(name, ttl_of(standing) or FOR_EVER)
                self.write(Write(name, Command.PERSIST))
            case b"repeat":
                self.say_again(name, elements[-1])
                self.say_again(name, elements[-1])
                self.pushed = None
            case _:
                raise ValueError(f"no model of {kind!r}")
        return 1

    def refresh(self, name: bytes, ttl: int) -> None:
        """Sets the TTL again if less than nine tenths of it, or more than all of it, is left."""
        deadline = self._lists[name].deadline
        left = -1 if deadline is None else deadline - self._now(name)
        if left < 0.9 * ttl or left > ttl:
            self._expire(name, ttl)

    def _expire(self, name: bytes, ttl: int) -> None:
        self.write(Write(name, Command.EXPIRE_AT, deadline=self._now(name) + ttl))

    def _now(self, name: bytes) -> int:
        return self._peer.clocks.get(name, 0)

    def say_again(self, name: bytes, last: bytes) -> None:
        self.write(Write(name, Command.PUSH, (again(last, self._run),)))

    def _base(self, body: bytes) -> bytes:
        return b"B" + self._run + body

    def _push(self, name: bytes, *values: bytes) -> int:
        self.pushed = Write(name, Command.PUSH, values)
        self.write(self.pushed)
        return 1

    def _append(self, name: bytes, kind: bytes, after: bytes, inputs: bytes) -> int:
        last = self._lists[name].elements[-1]
        moving = last[5 + FIXED_BYTES :]
        distance, mark = (0, mark_of(moving)) if last[0] == _BASE else (int.from_bytes(last[1:4], "little"), last[4:8])
        link = (distance + 2).to_bytes(3, "little") + mark + self._run
        if kind == b"append" and last[0] != _WHOLE:
            return self._push(name, inputs, b"S" + link + after)
        fixed = last[12 : 12 + FIXED_BYTES] if kind == b"append" else b""
        return self._push(name, inputs, b"W" + link + fixed + after)
