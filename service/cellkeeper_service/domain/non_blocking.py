"""What a store may offer beside its calls: to begin a commit without waiting, for a loop that does the waiting."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

from .store import Commit, CommitResult


class Stage(Enum):
    WAITING = "waiting"  # for bytes on its descriptor
    DONE = "done"  # nothing is left to wait for
    BLOCKED = "blocked"  # what is left may wait for other things, on a thread


class PendingCommit(Protocol):
    """A commit under way. For one thread at a time. Nothing here waits, but `finish` where it is BLOCKED.

    While it is WAITING: `advance` whenever the descriptor is readable. Then, or to give it up: stop watching the
    descriptor, and `finish`, once.
    """

    def fileno(self) -> int:
        """The descriptor; another one's as soon as it is finished."""

    @property
    def deadline(self) -> float:
        """Monotonic seconds: when to give up waiting. Later after every arrival of bytes."""

    @property
    def stage(self) -> Stage: ...

    def advance(self) -> Stage:
        """Takes in what is there."""

    def finish(self) -> list[CommitResult]:
        """The results, as of `commit_many`. While it is still WAITING, what has not come is UNKNOWN."""


@runtime_checkable
class NonBlockingStore(Protocol):
    """A store that can begin a commit without waiting."""

    def begin_commit(self, commits: Sequence[Commit]) -> PendingCommit | None:
        """None: not now, and nothing was sent; commit_many can. Never waits."""
