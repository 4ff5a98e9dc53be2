"""The lists that Redis holds of the explored records, and what a power cut leaves of its append-only file.

A cut in the middle of a transaction takes the last commit back, and leaves its first writes in the file. They are
executed at the next restart, in front of everything written since, if a whole transaction was written since; otherwise
the restart drops everything since. Writes that are alone in their call are in the file or not. docs/adr/203.

Lists are made as write.lua makes them (test_redis_file.py holds the two against each other), and read by the store's
own reader. OldLayout is the layout before: commit.lua of tests/store/layout1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import Commit
from cellkeeper_service.store import redis_layout, redis_layout1
from cellkeeper_service.store.redis_layout import base_element, checkpoint_element, fixed_of, moving_of

from .truth import Violation

Lists = dict[SessionKey, tuple[bytes, ...]]
Change = Callable[[tuple[bytes, ...]], tuple[bytes, ...]]
MARK_BYTES = slice(4, 8)  # of `moving`


@dataclass(frozen=True)
class Write:
    """One write command to one list. kind: rpush (elements), trim (to the last two), delete; of the layout before
    lset (the header) and clear (all but the header)."""

    key: SessionKey
    kind: str
    elements: tuple[bytes, ...] = ()

    def __call__(self, elements: tuple[bytes, ...]) -> tuple[bytes, ...]:
        match self.kind:
            case "rpush":
                return elements + self.elements
            case "trim":
                return elements[-2:]
            case "lset":
                return self.elements + elements[1:]
            case "clear":
                return elements[:1]
        return ()


Calls = list[list[Write]]
"""What each call of the script writes, one after the other. Two writes or more are a transaction."""


class Layout:
    """The layout of today."""

    def calls(self, commit: Commit, elements: tuple[bytes, ...], first_write: bool) -> Calls:
        """elements: what stands there, the commit's expected header at its end."""
        header = commit.header.packed
        pushed: tuple[bytes, ...]
        if commit.checkpoint is not None:
            pushed = (checkpoint_element(commit.checkpoint), base_element(header, commit.log))
        else:
            pushed = (entry(elements, header, commit.log),)
        push = Write(commit.key, "rpush", pushed)
        calls = [[push, push] if first_write else [push]]
        if commit.checkpoint is not None and elements:
            calls.append([Write(commit.key, "trim")])
        return calls

    def erase(self, key: SessionKey, elements: tuple[bytes, ...], first_write: bool) -> Calls:
        last = elements[-2:] if elements[-1][:1] == b"B" else elements[-1:]
        again = Write(key, "rpush", last)
        return [[again, again], [Write(key, "delete")]]

    def read(self, key: SessionKey, elements: tuple[bytes, ...]) -> Any:
        return redis_layout.read_elements(key, elements)


class OldLayout(Layout):
    """Several writes a commit, all in one transaction."""

    def calls(self, commit: Commit, elements: tuple[bytes, ...], first_write: bool) -> Calls:
        header, log = commit.header.packed, (commit.log,) if commit.log else ()
        if not elements:
            return [[Write(commit.key, "rpush", (header, commit.checkpoint or b"", *log))]]
        writes = [Write(commit.key, "lset", (header,))]
        if commit.checkpoint is not None:
            writes += [Write(commit.key, "clear"), Write(commit.key, "rpush", (commit.checkpoint, *log))]
        elif log:
            writes.append(Write(commit.key, "rpush", log))
        return [writes]

    def erase(self, key: SessionKey, elements: tuple[bytes, ...], first_write: bool) -> Calls:
        return [[Write(key, "delete")]]

    def read(self, key: SessionKey, elements: tuple[bytes, ...]) -> Any:
        return redis_layout1.read_elements(key, elements)


def entry(elements: tuple[bytes, ...], header: bytes, log: bytes) -> bytes:
    """The element of an append behind these."""
    at = redis_layout._base_of(elements)
    if at is None:
        raise Violation("an append to a list without a base")
    base = redis_layout.standing_header(elements[at], None)
    link = (len(elements) - at).to_bytes(3, "little") + moving_of(base)[MARK_BYTES]
    if elements[-1][:1] != b"W" and fixed_of(header) == fixed_of(base):
        return b"S" + link + moving_of(header) + log
    return b"W" + link + fixed_of(header) + moving_of(header) + log


@dataclass
class RedisFile:
    """lists: what Redis shows. undone: how to take the last commit or delete back. left: the writes that a cut left in
    the file. since: the calls written since that cut; before: what Redis showed then. brought: the records that `left`
    would bring back, by session, with the ledger's word for each."""

    layout: Layout = field(default_factory=Layout)
    lists: Lists = field(default_factory=dict)
    has_written: bool = False
    last: tuple[Calls, Lists] | None = None
    left: list[Write] = field(default_factory=list)
    since: Calls = field(default_factory=list)
    before: Lists = field(default_factory=dict)
    brought: dict[SessionKey, Any] = field(default_factory=dict)

    def commit(self, commit: Commit, record: Record) -> None:
        """Raises Violation where the list does not say what was committed."""
        elements = self.lists.get(commit.key, ())
        self._write(self.layout.calls(commit, elements, not self.has_written))
        read = self.layout.read(commit.key, self.lists[commit.key])
        if read != record:
            raise Violation(f"the list of a committed record says {read}")

    def delete(self, key: SessionKey) -> None:
        self._write(self.layout.erase(key, self.lists[key], not self.has_written))

    @property
    def cuts(self) -> int:
        """How many writes a cut may leave of the last commit; 0: there is nothing to cut."""
        return 0 if self.last is None or self.left else len(self.last[0][0])

    def cut(self, writes: int) -> None:
        """The power fails behind so many writes of the last commit's first call; its transaction goes on with the
        writes of other records, which are none here."""
        if self.last is None:
            raise RuntimeError("nothing to cut")
        calls, before = self.last
        self.left, self.since, self.before = calls[0][:writes], [], before
        self.lists, self.last, self.has_written = dict(before), None, False

    def restart(self) -> Lists:
        """What Redis shows after it has started once more."""
        lists = dict(self.before)
        if any(len(call) > 1 for call in self.since):
            for write in [*self.left, *(write for call in self.since for write in call)]:
                apply(lists, write)
        self.lists, self.left, self.since, self.last, self.has_written = lists, [], [], None, False
        return lists

    @property
    def written_since(self) -> set[SessionKey]:
        return {write.key for call in self.since for write in call}

    def _write(self, calls: Calls) -> None:
        self.last = (calls, dict(self.lists))
        self.has_written = True
        for call in calls:
            for write in call:
                apply(self.lists, write)
        if self.left:
            self.since += calls


def apply(lists: Lists, write: Write) -> None:
    after = write(lists.get(write.key, ()))
    if after:
        lists[write.key] = after
    else:
        lists.pop(write.key, None)
