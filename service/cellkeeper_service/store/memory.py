"""Records in this process's memory, for tests and experiments. Nothing survives the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.domain.store import (
    COMMITTED,
    Commit,
    CommitResult,
    Delete,
    Listed,
    Load,
    Outcome,
    Page,
    StoreError,
    StoreFacts,
)

from .cursor import session_after, session_cursor

NO_CHECKPOINT = "a first commit without a checkpoint"


@dataclass(slots=True)
class _Kept:
    header: Header
    checkpoint: bytes
    chunks: list[bytes]
    expires_ms: float  # by the store's clock; infinity: never


def _expiry_ms(header: Header, now_ms: float) -> float:
    return now_ms + header.ttl_ms if header.ttl_ms else float("inf")


def monotonic_ms() -> float:
    """Returns milliseconds since an arbitrary start."""
    return time.monotonic() * 1000.0


class MemoryStore:
    """A dictionary behind a lock.

    clock_ms: milliseconds since any start; a test passes a clock that it advances itself.
    """

    name = "memory"
    facts = StoreFacts("none")

    def __init__(self, clock_ms: Callable[[], float] = monotonic_ms) -> None:
        self._clock_ms = clock_ms
        self._lock = Lock()
        self._kept: dict[SessionKey, _Kept] = {}

    def check(self) -> None:
        """Does nothing: memory is always available."""

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        with self._lock:
            now_ms = self._clock_ms()
            return [self._load(load, now_ms) for load in loads]

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        with self._lock:
            now_ms = self._clock_ms()
            return [self._commit(commit, now_ms) for commit in commits]

    def delete_many(self, deletes: Sequence[Delete]) -> list[CommitResult]:
        with self._lock:
            now_ms = self._clock_ms()
            return [self._delete(delete, now_ms) for delete in deletes]

    def scan(self, tenant: str, model: str, prefix: str, cursor: str, limit: int) -> Page:
        after = session_after(cursor)
        with self._lock:
            now_ms = self._clock_ms()
            found = sorted(
                (key.session, key, kept.header)
                for key in list(self._kept)
                if (kept := self._standing(key, now_ms)) is not None
                if key.tenant == tenant and key.model == model and key.session.startswith(prefix)
                if key.session.encode() > after
            )
        page: list[Listed] = [(key, header) for _, key, header in found[:limit]]
        return Page(page, session_cursor(page[-1][0].session.encode()) if len(found) > len(page) and page else "")

    def close(self) -> None:
        with self._lock:
            self._kept.clear()

    def _standing(self, key: SessionKey, now_ms: float) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is not None and kept.expires_ms <= now_ms:
            del self._kept[key]
            return None
        return kept

    def _load(self, load: Load, now_ms: float) -> Record | None:
        kept = self._standing(load.key, now_ms)
        if kept is None:
            return None
        if load.touch:
            kept.expires_ms = _expiry_ms(kept.header, now_ms)
        return Record(kept.header, kept.checkpoint, b"".join(kept.chunks))

    def _commit(self, commit: Commit, now_ms: float) -> CommitResult:
        key, expected, header, log, checkpoint = commit
        kept = self._standing(key, now_ms)
        standing = None if kept is None else kept.header
        if standing is not expected and standing != expected:
            return CommitResult(Outcome.CONFLICT, standing)
        expires_ms = _expiry_ms(header, now_ms)
        if checkpoint is not None:
            self._kept[key] = _Kept(header, checkpoint, [log], expires_ms)
        elif kept is not None:
            kept.header, kept.expires_ms = header, expires_ms
            kept.chunks.append(log)
        else:
            return CommitResult(Outcome.REFUSED, message=NO_CHECKPOINT)
        return COMMITTED

    def _delete(self, delete: Delete, now_ms: float) -> CommitResult:
        kept = self._standing(delete.key, now_ms)
        if kept is None or kept.header.position.generation != delete.generation:
            return CommitResult(Outcome.CONFLICT, None if kept is None else kept.header)
        del self._kept[delete.key]
        return COMMITTED
