"""The store of the explored world: the real one in memory, with a ledger, and a past that it can fall back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Load, Outcome, StoreError
from cellkeeper_service.store.memory import MemoryStore, _Kept

from .redis_file import RedisFile
from .truth import Inputs, Ledger, Violation


def still_ms() -> float:
    """Time stands still here."""
    return 0.0


@dataclass
class Past:
    """What stood there before one of the last commits."""

    kept: dict[SessionKey, Any]
    standing: dict[SessionKey, tuple[bytes, Inputs]]
    ended: frozenset[bytes]


class ExploredStore(MemoryStore):
    """depth: how many commits a fail-over may lose at the most. file: of Redis, where its power may be cut."""

    def __init__(self, max_log_steps: int, depth: int, file: RedisFile | None = None) -> None:
        super().__init__(still_ms)
        self.file = file
        self.last_call: Commit | Delete | None = None  # that it did
        self.seen = False  # somebody read since what that made; as the reply waits for the sync, too, it was synced
        self.ledger = Ledger(max_log_steps)
        self.depth = depth
        self.past: list[Past] = []  # oldest first

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()

    def same_place(self, standing: Header | None, expected: Header | None) -> bool:
        """The compare of the compare-and-set: the whole header."""
        return standing == expected

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        self.seen |= self.last_call is not None and any(load.key == self.last_call.key for load in loads)
        return super().load_many(loads)

    def fall_back(self, commits: int, key: SessionKey | None) -> None:
        """The last commits are lost; of one record only, where `key` is given. Nobody is told."""
        past = self.past[-commits]
        del self.past[-commits:]
        if key is None:
            self._kept = past.kept
            self.ledger.standing = past.standing
            self.ledger.ended = past.ended
            return
        self._kept.pop(key, None)
        self.ledger.standing.pop(key, None)
        if key in past.kept:
            self._kept[key] = past.kept[key]
            self.ledger.standing[key] = past.standing[key]
            self.ledger.ended -= {past.standing[key][0]}

    def _commit(self, commit: Commit) -> CommitResult:
        kept = self._kept.get(commit.key)
        standing = None if kept is None else kept.header
        past = self._now()
        if self.same_place(standing, commit.expected):
            commit = commit._replace(expected=standing)
        result = super()._commit(commit)
        if result.outcome is Outcome.COMMITTED:
            self._remember(past)
            after = self._kept[commit.key]
            self.ledger.committed(commit, after.checkpoint, b"".join(after.chunks))
            if self.file is not None:
                self.file.commit(commit, self._record(commit.key))
        return result

    def _delete(self, delete: Delete) -> CommitResult:
        past = self._now()
        result = super()._delete(delete)
        if result.outcome is Outcome.COMMITTED:
            self._remember(past)
            self.ledger.deleted(delete.key)
            if self.file is not None:
                self.file.delete(delete.key)
        return result

    def cut_power(self, writes: int) -> None:
        """The last commit is taken back, and so many of its writes stay in the file."""
        file = self.file
        if file is None:
            raise RuntimeError("a store without a file")
        file.brought = {
            key: (self._record(key), self.ledger.standing[key]) for key in self._kept if key in self.ledger.standing
        }
        file.cut(writes)
        self.fall_back(1, None)

    def restart(self) -> None:
        """Redis starts once more. Raises Violation where a record cannot be read, is one that never was, or is not what
        was committed since the cut."""
        file = self.file
        if file is None:
            raise RuntimeError("a store without a file")
        written = file.written_since
        lists = file.restart()
        for key in {*self._kept, *lists, *written}:
            record = file.layout.read(key, lists[key]) if key in lists else None
            if isinstance(record, Exception):
                raise Violation(f"the record of {key.session} cannot be read: {record}")
            if record == (self._record(key) if key in self._kept else None):
                continue
            if key in written:
                raise Violation(f"what was committed to {key.session} after a power cut is gone after the next restart")
            brought, standing = file.brought.get(key, (None, None))
            if record is None or record != brought or standing is None:
                raise Violation(f"the record of {key.session} is one that it never was")
            self._kept[key] = _Kept(record.header, record.checkpoint, [record.log], float("inf"))
            before = self.ledger.standing.get(key)
            if before is not None and before[0] != standing[0]:
                self.ledger.ended |= {before[0]}
            self.ledger.standing[key] = standing
        self.past = []

    def _record(self, key: SessionKey) -> Record:
        kept = self._kept[key]
        return Record(kept.header, kept.checkpoint, b"".join(kept.chunks))

    def _now(self) -> Past | None:
        if not self.depth:
            return None
        kept = {key: replace(one, chunks=list(one.chunks)) for key, one in self._kept.items()}
        return Past(kept, dict(self.ledger.standing), self.ledger.ended)

    def _remember(self, past: Past | None) -> None:
        if past is not None:
            self.past = [*self.past, past][-self.depth :]
