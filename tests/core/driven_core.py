"""The new core with the outside of the old one, for tests that drive either."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.core import Core, owe_nothing
from cellkeeper_service.core.limits import Clock, Limits
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.core.requests import Request
from cellkeeper_service.core.session import InflightCommit, SessionState
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import CommitResult, Load, StoreError
from cellkeeper_service.errors import Rejection


class DrivenCore:
    """Every event is followed by `schedule`, and results are told at once."""

    def __init__(
        self,
        models: Mapping[str, Models[Version]],
        limits: Limits,
        clock: Clock,
        meter: Meter,
        mint: Callable[[], bytes],
        owe: Callable[[str, int], None] = owe_nothing,
    ) -> None:
        self.core = Core(models, limits, clock, meter, mint, owe)

    def submit(self, request: Request) -> None:
        self.core.submit(request)
        self._go_on()

    def take_loads(self) -> tuple[list[SessionState], list[Load]]:
        return self.core.take_loads()

    def loaded(self, sessions: Sequence[SessionState], results: Sequence[Record | StoreError | None]) -> None:
        self.core.on_loaded(sessions, results)
        self._go_on()

    def take_calls(self) -> list[Batch]:
        batches = self.core.schedule()
        self._go_on()
        return batches

    def parts_of(self, batch: Batch) -> list[Batch]:
        return batch.halves()

    def computed(self, batch: Batch) -> None:
        self.core.on_computed(batch)
        self._go_on()

    def failed(self, batch: Batch, why: Rejection | None = None) -> list[Batch]:
        halves = self.core.on_failed(batch, why)
        self._go_on()
        return halves

    def take_flights(self) -> list[InflightCommit]:
        commits = self.core.take_commits()
        self._go_on()
        return commits

    def landed(self, commits: Sequence[InflightCommit], results: Sequence[CommitResult]) -> None:
        self.core.on_committed(commits, results)
        self._go_on()

    def expire(self) -> None:
        self.core.expire()
        self._go_on()

    @property
    def wants_load(self) -> bool:
        return bool(self.core.context.to_load or self.core.context.to_load_alone)

    @property
    def wants_call(self) -> bool:
        return self.core.has_work

    @property
    def wants_flight(self) -> bool:
        return bool(self.core.context.to_commit)

    @property
    def unanswered(self) -> int:
        return self.core.unanswered

    def is_hot(self, key: SessionKey) -> bool:
        return self.core.is_cached(key)

    def hot_count(self, model: str) -> int:
        return self.core.cached_count(model)

    def requests(self) -> list[Request]:
        """All that have no result."""
        return [request for session in self.core.context.sessions.values() for request in session.requests()]

    @property
    def holds_work(self) -> bool:
        """Whether anything is left to be done, though nothing is on its way."""
        context: Any = self.core.context
        caches = context.caches.values()
        return self.wants_load or self.wants_call or self.wants_flight or any(cache.waiting for cache in caches)

    def _go_on(self) -> None:
        self.core.schedule(engine_is_free=False)
        for request in self.core.take_finished():
            request.done(request.result)
