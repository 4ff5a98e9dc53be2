"""The store of the explored world: the real one in memory, with a ledger, and a past that it can fall back to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from cellkeeper_service.domain.record import Header, SessionKey
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Outcome
from cellkeeper_service.store.memory import MemoryStore

from .truth import Inputs, Ledger


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
    """depth: how many commits a fail-over may lose at the most."""

    def __init__(self, max_log_steps: int, depth: int) -> None:
        super().__init__(still_ms)
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
        return result

    def _delete(self, delete: Delete) -> CommitResult:
        past = self._now()
        result = super()._delete(delete)
        if result.outcome is Outcome.COMMITTED:
            self._remember(past)
            self.ledger.deleted(delete.key)
        return result

    def _now(self) -> Past | None:
        if not self.depth:
            return None
        kept = {key: replace(one, chunks=list(one.chunks)) for key, one in self._kept.items()}
        return Past(kept, dict(self.ledger.standing), self.ledger.ended)

    def _remember(self, past: Past | None) -> None:
        if past is not None:
            self.past = [*self.past, past][-self.depth :]
