"""A store whose commits are begun and then awaited. The contract must hold unchanged."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any

from cellkeeper_service.domain.non_blocking import NonBlockingStore, PendingCommit, Stage
from cellkeeper_service.domain.store import Commit, CommitResult, Store


def wait(pending: PendingCommit) -> Stage:
    """Waits as a loop does, until there is nothing to wait for or the deadline has passed."""
    poll = select.poll()
    if pending.stage is Stage.WAITING:
        poll.register(pending.fileno(), select.POLLIN)
    while pending.stage is Stage.WAITING:
        left_seconds = pending.deadline - time.monotonic()
        if left_seconds <= 0:
            break
        poll.poll(1000 * left_seconds)
        pending.advance()
    return pending.stage


class PolledStore:
    """Passes everything on to the store except for commits, which it begins and awaits.

    called: how many commits were requested. pending: how many of them could be begun.
    """

    def __init__(self, store: Store) -> None:
        if not isinstance(store, NonBlockingStore):
            raise TypeError(f"{store.name} cannot begin a commit")
        self._store = store
        self._begin = store.begin_commit
        self.called = 0
        self.pending = 0

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        self.called += bool(commits)
        pending = self._begin(commits)
        if pending is None:
            return self._store.commit_many(commits)
        self.pending += 1
        wait(pending)
        return pending.finish()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
