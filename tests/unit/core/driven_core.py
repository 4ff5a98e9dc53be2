"""The core with a driver instead of a loop, for tests that decide what happens next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.requests import LogReplay, Request, Step
from cellkeeper_service.core.session import InflightCommit, SessionState
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import CommitResult, StoreError
from cellkeeper_service.errors import Rejection


class DrivenCore(Core):
    """Advances the ready sessions after each event, and delivers results at once."""

    def submit(self, request: Request) -> None:
        self.submit_many((request,))

    def submit_many(self, requests: Iterable[Request]) -> None:
        super().submit_many(requests)
        self._go_on()

    def submit_alike(self, steps: Sequence[Step]) -> None:
        super().submit_alike(steps)
        self._go_on()

    def schedule(self) -> list[Batch]:
        batches = super().schedule()
        self._go_on()
        return batches

    def on_computed(self, batch: Batch) -> None:
        super().on_computed(batch)
        self._go_on()

    def on_failed(self, batch: Batch, why: Rejection | None = None) -> list[Batch]:
        halves = super().on_failed(batch, why)
        self._go_on()
        return halves

    def on_loaded(self, sessions: Sequence[SessionState], results: Sequence[Record | StoreError | None]) -> None:
        super().on_loaded(sessions, results)
        self._go_on()

    def take_commits(self) -> list[InflightCommit]:
        commits = super().take_commits()
        self._go_on()
        return commits

    def on_committed(self, commits: Sequence[InflightCommit], results: Sequence[CommitResult]) -> None:
        super().on_committed(commits, results)
        self._go_on()

    def expire(self) -> None:
        super().expire()
        self._go_on()

    @property
    def holds_work(self) -> bool:
        """Whether work is left although none is under way."""
        waiting = any(cache.waiting for cache in self.context.caches.values())
        return self.wants_load or self.has_work or self.wants_commit or waiting

    def _go_on(self) -> None:
        self.context.begin_event()
        self._advance_ready()
        for request in self.take_finished():
            request.done([request])


def unanswered(core: Core) -> list[Request]:
    """Requests that have no result, session by session, those furthest on first."""
    found: list[Request] = []
    for session in core.context.sessions.values():
        found += [] if session.in_flight is None else session.in_flight.requests
        found += session.pending
        work = session.computing
        if work is not None:
            found += work.duplicates if isinstance(work, LogReplay) else [work]
        found += session.queue
    return found
