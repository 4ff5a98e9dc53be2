"""A store whose commits are begun, and then waited for: the contract must not know the difference."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any

from cellkeeper_service.domain.begun import BeginsCommits, Begun, Stage
from cellkeeper_service.domain.store import Commit, CommitResult, Store


def wait(begun: Begun) -> Stage:
    """Waits as a loop does, until there is nothing more to wait for, or its deadline has passed."""
    poll = select.poll()
    if begun.stage is Stage.WAITING:
        poll.register(begun.fileno(), select.POLLIN)
    while begun.stage is Stage.WAITING:
        left_seconds = begun.deadline - time.monotonic()
        if left_seconds <= 0:
            break
        poll.poll(1000 * left_seconds)
        begun.advance()
    return begun.stage


class BegunStore:
    """All of it is the store's, but for the way of a commit. called, begun: how many commits were asked for, and how
    many of them went this way."""

    def __init__(self, store: Store) -> None:
        if not isinstance(store, BeginsCommits):
            raise TypeError(f"{store.name} cannot begin a commit")
        self._store = store
        self._begin = store.begin_commit
        self.called = 0
        self.begun = 0

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        self.called += bool(commits)
        begun = self._begin(commits)
        if begun is None:
            return self._store.commit_many(commits)
        self.begun += 1
        wait(begun)
        return begun.finish()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
