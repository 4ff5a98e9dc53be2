"""The store of the explored world: lists as in Redis, written and read by the product's own rules.

It has a ledger, a past that it can fall back to, and an append-only file that a power cut may end anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.domain.store import COMMITTED, Commit, CommitResult, Delete, Load, Outcome, StoreError
from cellkeeper_service.store.redis.keys import redis_key, session_key
from cellkeeper_service.store.redis.layout import RUN_BYTES

from . import layout2
from .append_only_file import File
from .layout2 import Answer, Call, Calls, Peer
from .redis_lists import NOTHING, Change, Command, List, Lists, Unit, Write, applied, cut, cuts, open_from, replayed
from .restart_check import LONGEST_MS, check_restart
from .sequential_model import Inputs, Ledger, Violation


@dataclass
class Snapshot:
    """The content of the store before one of the last commits."""

    lists: Lists
    standing: dict[SessionKey, tuple[bytes, Inputs]]
    ended: frozenset[bytes]


@dataclass
class ExploredStore:
    """The store that replicas use.

    depth: how many commits a fail-over may lose, and a power cut if writes are not synced at once. synced: appendfsync
    always: nobody is told of a write before it is safe. tracks: a power cut may still come. clocks: each key has a
    clock of its own, in ms, as if the others did not have to wait for it; 0 if it is not here.
    """

    layout: ClassVar[Any] = layout2

    max_log_steps: int
    depth: int = 0
    falls_back: bool = False
    synced: bool = True
    tracks: bool = False
    lists: Lists = field(default_factory=dict)
    snapshots: list[Snapshot] = field(default_factory=list)  # oldest first
    has_written: frozenset[str] = frozenset()  # connections, since the last restart
    restarts: int = 0
    clocks: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.max_log_steps)
        self.file = File({}, {})

    # what the replicas see

    def load_many(self, loads: Sequence[Load], connection: str) -> list[Record | StoreError | None]:
        lists, names = dict(self.lists), [redis_key(load.key) for load in loads]
        touched = {redis_key(load.key) for load in loads if load.touch}
        writes = self.layout.load(lists, names, touched, self.peer(connection))
        self._wrote(writes, lists)
        if self.file.comebacks:
            there = set(names) & lists.keys() - self.file.written
            self.file.reads |= {(name, self.file.end) for name in there}
        return [self.record(load.key) for load in loads]

    def commit_many(self, commits: Sequence[Commit], connection: str) -> list[CommitResult]:
        """Executes all commits in one run of the script."""
        snapshot = self._now()
        meant = [self._as_meant(commit) for commit in commits]
        answers = self.pipeline(self.layout.commit_calls(meant), connection)
        results = [_result(answer) for answer in answers]
        if COMMITTED in results:
            self.has_written |= {connection}
            self._remember(snapshot)
        for commit, result in zip(meant, results, strict=True):
            if result is COMMITTED:
                self._check_ttl(commit)
                self.ledger.committed(commit, self._read(commit.key))
        self._seal()
        return results

    def delete_many(self, deletes: Sequence[Delete], connection: str) -> list[CommitResult]:
        """Executes each delete in a run of its own."""
        results = []
        for delete in deletes:
            snapshot = self._now()
            (answer,) = self.pipeline(self.layout.delete_calls(delete), connection)
            results.append(_result(answer))
            if results[-1] is COMMITTED:
                self._remember(snapshot)
                self.ledger.deleted(delete.key)
        self._seal()
        return results

    def tell(self, end: int) -> None:
        """Records that somebody is told what was done up to this point of the file."""
        self.file.told = max(self.file.told, end - self.file.folded)
        self._seal()

    # what a reader of the explored world sees

    def record(self, key: SessionKey) -> Record | None:
        """Returns the record. Raises Violation if it cannot be read."""
        record = self._read(key)
        if isinstance(record, StoreError):
            raise Violation(str(record))
        return record

    def sessions(self) -> list[SessionKey]:
        return sorted(session_key(name) for name in self.there(self.lists))

    def there(self, lists: Lists) -> Lists:
        """Returns `lists` without those whose time has passed."""
        return {name: one for name, one in lists.items() if not self._is_over(name, one)}

    def records(self, lists: Lists) -> list[tuple[SessionKey, Record]]:
        """Returns the records of `lists`, all of which can be read."""
        named = [(session_key(name), one.elements) for name, one in sorted(lists.items())]
        return [(key, self.layout.read(key, elements)) for key, elements in named]

    def left_ms(self, name: bytes, deadline: int | None) -> int | None:
        """Returns how long it is until the deadline of this key; None: it has none."""
        return None if deadline is None else deadline - self.clocks.get(name, 0)

    def expires(self, key: SessionKey) -> bool:
        """Returns whether the session's time may pass."""
        left_ms = self.left_ms(name := redis_key(key), self.lists.get(name, NOTHING).deadline)
        return left_ms is not None and left_ms <= LONGEST_MS

    def aged(self, key: SessionKey) -> bool:
        """Returns whether the session's TTL has nearly passed since it was last used."""
        return self.left_ms(name := redis_key(key), self.lists.get(name, NOTHING).deadline) == 1

    # what switches replace

    def same_place(self, standing: Header | None, expected: Header | None) -> bool:
        """The compare of the compare-and-set, on the whole header."""
        return standing == expected

    def pipeline(self, calls: Calls, connection: str) -> list[Answer]:
        """Runs the script once for each call. Returns the answers of the one that counts."""
        before, call, after = calls
        peer = self.peer(connection)
        for one in before:
            self.run(one, peer)
        answers = self.run(call, peer)
        for one in after:
            self.run(one, peer)
        return answers

    def peer(self, connection: str) -> Peer:
        return Peer(connection not in self.has_written, self.restarts.to_bytes(RUN_BYTES, "big"), self.clocks)

    def run(self, call: Call, peer: Peer) -> list[Answer]:
        """Runs the script once."""
        lists = dict(self.lists)
        answers, writes = self.layout.run(lists, call, peer)
        self._wrote(writes, lists)
        return list(answers)

    # what may happen to it

    def disconnect(self, connection: str) -> None:
        """Drops the connections of a replica that is gone; the next one of its name has its own."""
        self.has_written -= {connection}

    def idle(self, key: SessionKey) -> None:
        """Lets the session's TTL pass but for the last millisecond."""
        self._pass(redis_key(key), -1)

    def expire(self, key: SessionKey, noticed: bool) -> None:
        """Lets the session's TTL pass. noticed: Redis deletes the key at once; otherwise when a script comes to it."""
        name = redis_key(key)
        if not self.layout.header(self.lists[name].elements).ttl_ms:
            raise Violation(f"{key.session} expires, which is to be kept for ever")
        self._pass(name, 0)
        self.ledger.deleted(key)
        if noticed:
            lists, write = dict(self.lists), Write(name, Command.DEL)
            write.apply(lists)
            self._wrote([write], lists)
            self._seal()

    def fall_back(self, commits: int, key: SessionKey | None) -> None:
        """Loses the last commits; if `key` is given, only those of that record. Nobody is told."""
        snapshot = self.snapshots[-commits]
        del self.snapshots[-commits:]
        if key is None:
            self.lists = snapshot.lists
            self.ledger.standing = snapshot.standing
            self.ledger.ended = snapshot.ended
        else:
            name = redis_key(key)
            self.lists = {other: one for other, one in self.lists.items() if other != name}
            self.ledger.standing.pop(key, None)
            if name in snapshot.lists:
                self.lists[name] = snapshot.lists[name]
                self.ledger.standing[key] = snapshot.standing[key]
                self.ledger.ended -= {snapshot.standing[key][0]}
        for gone in self.ledger.standing.keys() - set(self.sessions()):  # its time has passed since then
            self.ledger.deleted(gone)
        self.file, self.has_written, self.restarts = File(self.lists, self.lists), frozenset(), self.restarts + 1

    def power_cuts(self) -> list[tuple[int, int]]:
        """Returns what a power cut can leave: (units lost, writes left).

        The writes are those of the first lost unit that stay in the file after an open MULTI (-1: none).
        """
        units = self.file.units
        return [(len(units) - kept, writes) for kept, writes, _ in cuts(units, self._safe())]

    def power_cut(self, lost: int, writes: int, tracks: bool) -> bool:
        """Restarts Redis after one of `power_cuts`; (0, -1) is a plain restart.

        tracks: another may come. Returns True if anything is lost that somebody knew of. Raises Violation.
        """
        file = self.file
        kept = len(file.units) - lost
        left = cut(file.units, kept, writes)
        if left is None or kept < self._safe():
            raise Violation("no such power cut")
        told = applied(file.live, file.units[file.old : kept])
        written = file.written | {write.name for unit in file.units[file.old : kept] for write in unit.writes}
        written |= {name for name, at in file.reads if at <= file.folded + kept}
        self.lists = replayed(file.base, left)
        begin = open_from(left)
        old = () if begin is None else left[begin:]
        check_restart(self, told, written)
        self.file = File(self.lists, self.lists, old, len(old), told=len(old))
        self.file.comebacks = tuple(change for unit in old for change in unit.changes)
        self.has_written, self.tracks, self.snapshots, self.restarts = frozenset(), tracks, [], self.restarts + 1
        return kept < file.told

    # inside

    def _wrote(self, writes: Sequence[Write], lists: Lists) -> None:
        """Records that a script made `lists` with these writes."""
        if writes and self.tracks:
            changes = tuple(self._change(name, lists) for name in dict.fromkeys(write.name for write in writes))
            self.file.units += (Unit(tuple(writes), changes),)
        self.lists = lists

    def _is_over(self, name: bytes, one: List) -> bool:
        left_ms = self.left_ms(name, one.deadline)
        return left_ms is not None and left_ms <= 0

    def _pass(self, name: bytes, beyond_ms: int) -> None:
        """Sets the key's clock to its deadline, or near it."""
        deadline = self.lists[name].deadline
        if deadline is None:
            raise LookupError(f"{name!r} does not expire")
        self.clocks = {**self.clocks, name: deadline + beyond_ms}

    def _check_ttl(self, commit: Commit) -> None:
        """Checks that Redis keeps a committed record as long as its header says. Raises Violation."""
        name, asked = redis_key(commit.key), commit.header.ttl_ms
        left_ms = self.left_ms(name, self.lists[name].deadline)
        left_ms = 0 if left_ms is None or left_ms > LONGEST_MS else left_ms
        if not 0.9 * asked <= left_ms <= asked:
            raise Violation(f"{commit.key.session} is kept for {left_ms} ms after a commit that says {asked}")

    def _read(self, key: SessionKey) -> Record | StoreError | None:
        name = redis_key(key)
        one = self.lists.get(name)
        if one is None or self._is_over(name, one):
            return None
        record: Record | StoreError = self.layout.read(key, one.elements)
        return record

    def header(self, lists: Lists, name: bytes) -> Header | None:
        """Returns the header of the record in the list, whether or not its time has passed."""
        header: Header | None = self.layout.header(lists.get(name, NOTHING).elements)
        return header

    def _as_meant(self, commit: Commit) -> Commit:
        standing = self.header(self.there(self.lists), redis_key(commit.key))
        return commit._replace(expected=standing) if self.same_place(standing, commit.expected) else commit

    def _change(self, name: bytes, after: Lists) -> Change:
        headers = [self.header(lists, name) for lists in (self.lists, after)]
        return Change(name, *(None if header is None else header.packed for header in headers))

    def _safe(self) -> int:
        """Returns how many units no power cut can touch."""
        file = self.file
        return max(file.old, file.told if self.synced else len(file.units) - self.depth)

    def _seal(self) -> None:
        if self.file.units:
            self.file.fold(self._safe())

    def _now(self) -> Snapshot | None:
        if not self.falls_back:
            return None
        return Snapshot(self.lists, dict(self.ledger.standing), self.ledger.ended)

    def _remember(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            self.snapshots = [*self.snapshots, snapshot][-self.depth :]


def _result(answer: Answer) -> CommitResult:
    if answer == 1:
        return COMMITTED
    return CommitResult(Outcome.CONFLICT, Header.unpack(answer) if isinstance(answer, bytes) else None)
