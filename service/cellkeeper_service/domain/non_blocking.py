"""An optional store interface: begin a commit without waiting, and let an event loop do the waiting."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

from .store import Commit, CommitResult


class Stage(Enum):
    WAITING = "waiting"  # for bytes on its descriptor
    DONE = "done"  # nothing is left to wait for
    BLOCKED = "blocked"  # the rest may block, so it runs on a thread


class PendingCommit(Protocol):
    """A commit in flight, for use by one thread at a time. Nothing here waits, except `finish` when BLOCKED.

    While it is WAITING, call `advance` whenever the descriptor is readable; at any other time it finds nothing and does
    no harm. Then, or to give up, stop watching the descriptor and call `finish` once.
    """

    def fileno(self) -> int:
        """The descriptor to watch; once the commit is finished, the number may belong to another."""

    @property
    def deadline(self) -> float:
        """When to give up waiting, in monotonic seconds; extended whenever bytes arrive."""

    @property
    def stage(self) -> Stage: ...

    def advance(self) -> Stage:
        """Reads the bytes that have arrived, and returns the new stage."""

    def finish(self) -> list[CommitResult]:
        """Returns the results, as `commit_many` does. If it is still WAITING, those that have not come are UNKNOWN."""


@runtime_checkable
class NonBlockingStore(Protocol):
    """A store that can begin a commit without waiting."""

    def begin_commit(self, commits: Sequence[Commit]) -> PendingCommit | None:
        """Begins a commit; never waits. Returns None if it cannot right now: nothing was sent, so use commit_many."""
