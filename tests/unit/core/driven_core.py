"""The core with a driver instead of a loop, for tests that decide what happens next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.core import Core, owe_nothing
from cellkeeper_service.core.limits import Clock, Limits
from cellkeeper_service.core.models import Models
from cellkeeper_service.core.requests import LogReplay, Request, Step
from cellkeeper_service.core.session import InflightCommit, SessionState
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import CommitResult, Load, StoreError
from cellkeeper_service.errors import Rejection


class DrivenCore:
    """The events of a core. Calls `schedule` after each event, and delivers results at once."""

    def __init__(
        self,
        models: Mapping[str, Models],
        limits: Limits,
        clock: Clock,
        meter: Meter,
        mint: Callable[[], bytes],
        owe: Callable[[str, int], None] = owe_nothing,
    ) -> None:
        self.core = Core(models, limits, clock, meter, mint, owe)

    def submit(self, request: Request) -> None:
        self.core.submit_many((request,))
        self._go_on()

    def submit_many(self, requests: Iterable[Request]) -> None:
        self.core.submit_many(requests)
        self._go_on()

    def submit_alike(self, steps: Sequence[Step]) -> None:
        self.core.submit_alike(steps)
        self._go_on()

    def schedule(self) -> list[Batch]:
        """Returns the batches of the next tick."""
        batches = self.core.schedule()
        self._go_on()
        return batches

    def on_computed(self, batch: Batch) -> None:
        self.core.on_computed(batch)
        self._go_on()

    def on_failed(self, batch: Batch, why: Rejection | None = None) -> list[Batch]:
        halves = self.core.on_failed(batch, why)
        self._go_on()
        return halves

    def take_loads(self) -> tuple[list[SessionState], list[Load]]:
        return self.core.take_loads()

    def on_loaded(self, sessions: Sequence[SessionState], results: Sequence[Record | StoreError | None]) -> None:
        self.core.on_loaded(sessions, results)
        self._go_on()

    def take_commits(self) -> list[InflightCommit]:
        commits = self.core.take_commits()
        self._go_on()
        return commits

    def on_committed(self, commits: Sequence[InflightCommit], results: Sequence[CommitResult]) -> None:
        self.core.on_committed(commits, results)
        self._go_on()

    def expire(self) -> None:
        self.core.expire()
        self._go_on()

    @property
    def wants_load(self) -> bool:
        return self.core.wants_load

    @property
    def wants_commit(self) -> bool:
        return self.core.wants_commit

    @property
    def has_work(self) -> bool:
        return self.core.has_work

    @property
    def holds_work(self) -> bool:
        """Whether work is left although none is under way."""
        waiting = any(cache.waiting for cache in self.core.context.caches.values())
        return self.wants_load or self.has_work or self.wants_commit or waiting

    @property
    def unanswered(self) -> int:
        return self.core.unanswered

    def is_cached(self, key: SessionKey) -> bool:
        return self.core.is_cached(key)

    def cached_count(self, model: str) -> int:
        return self.core.cached_count(model)

    def requests(self) -> list[Request]:
        """Returns all requests without a result."""
        return unanswered(self.core)

    def _go_on(self) -> None:
        self.core.schedule(engine_is_free=False)
        for request in self.core.take_finished():
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
