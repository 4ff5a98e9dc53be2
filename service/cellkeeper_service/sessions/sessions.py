"""The heart: what every session's requests do, in which order, and when they are answered.

Plain synchronous logic without I/O, clocks or threads of its own. Whoever drives it may interleave

    submit(request)                             puts it into its session's line
    submit_columns(columns)                     the same for a frame's items; gives back those to submit one by one
    gather(step)                                takes a single step the short way, or says that it is to be submitted
    take_loads()   -> loaded(lines, results)    the store reads records in between
    take_calls()   -> computed(call)            call.execute() lets the engine compute in between
    take_flights() -> landed(flights, results)  the store writes in between

as it likes. A request's `done` is called exactly once, by one of these or by expire().
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.position import MAX_STEP
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import CommitResult, Load, StoreError
from cellkeeper_service.errors import Rejection, internal_error

from .cohort import CohortCall, CohortFlight, FrameColumns
from .cohorts import Cohorts
from .committing import Committing
from .deciding import Deciding
from .desk import Desk
from .hot import Hot
from .hotset import HotSet
from .intake import Intake
from .limits import MAX_CALL_ITEMS, Clock, Limits
from .line import Flight, Line
from .loading import Loading
from .requests import (
    Request,
    Step,
)
from .served import Models
from .tick import EngineCall
from .ticking import Ticking

Call = EngineCall | CohortCall
AnyFlight = Flight | CohortFlight

log = logging.getLogger(__name__)


def owe_nothing(tenant: str, steps: int) -> None:
    """Where nobody's steps are counted."""


class Sessions:
    """Every session that this replica is busy with or keeps hot."""

    def __init__(
        self,
        models: Mapping[str, Models],
        limits: Limits,
        clock: Clock,
        meter: Meter,
        mint: Callable[[], bytes] = lambda: os.urandom(16),
        owe: Callable[[str, int], None] = owe_nothing,
    ) -> None:
        """mint: makes the 16 random bytes of a new generation. owe: is told which tenant's request made the engine
        compute how many time steps beyond those asked for."""
        self._desk = Desk(models, limits, clock, meter, mint, self._advance, owe)
        self._hotset = HotSet(self._desk)
        self._loading = Loading(self._desk, self._hotset)
        self._committing = Committing(self._desk, self._hotset)
        self._ticking = Ticking(self._desk, self._hotset, self._committing)
        self._intake = Intake(self._desk)
        self._deciding = Deciding(self._desk, self._hotset, self._ticking, self._committing, self.submit)
        self._cohorts = Cohorts(self._desk, self._hotset)

    def submit(self, request: Request) -> None:
        """Takes a request whose fields have been checked. It may be answered before this returns."""
        self._advance(self._desk.enter(request))

    def gather(self, step: Step) -> bool:
        """Takes a single step to go the short way with others that come one by one. False: it cannot, and is to be
        submitted."""
        return self._intake.take_one(step)

    def submit_columns(self, columns: FrameColumns) -> list[int]:
        """Takes the items of a frame that can go the short way. The others' numbers are returned: they are to be
        submitted as requests."""
        return self._intake.take_in(columns)

    def refuse_many(self, count: int, deadline: float) -> Rejection | None:
        """Why none of `count` steps with that deadline would be taken, if so; they are counted as refused."""
        return self._desk.refuse_many(count, deadline)

    def take_loads(self) -> tuple[list[Line], list[Load]]:
        return self._loading.take()

    def loaded(self, lines: Sequence[Line], results: Sequence[Record | StoreError | None]) -> None:
        self._loading.loaded(lines, results)

    def take_calls(self) -> list[Call]:
        """The engine calls of the next tick."""
        calls = [self._cohorts.take(served) for served in self._desk.served() if served.cohorts]
        return [*filter(None, calls), *self._ticking.take()]

    def parts_of(self, call: Call) -> list[Call]:
        """Smaller calls instead of one that the engine refused: whoever is at fault fails alone. Empty: it cannot be
        divided."""
        return [] if isinstance(call, CohortCall) else [*self._ticking.parts_of(call)]

    def computed(self, call: Call) -> None:
        if isinstance(call, CohortCall):
            self._cohorts.computed(call)
        else:
            self._ticking.computed(call)

    def failed(self, call: Call, why: Rejection | None = None) -> None:
        """The engine raised: the call's requests fail. why: of the engine as a whole; None: one of them is at fault."""
        if isinstance(call, CohortCall):
            self._cohorts.failed(call, why)
        else:
            self._ticking.failed(call, why or internal_error())

    def take_flights(self) -> list[AnyFlight]:
        """What is to be written now, at most one commit or delete for each session."""
        flights: list[AnyFlight] = [*self._committing.take()]
        flights += self._cohorts.take_flights(MAX_CALL_ITEMS - len(flights))
        return flights

    def landed(self, flights: Sequence[AnyFlight], results: Sequence[CommitResult]) -> None:
        pairs = list(zip(flights, results, strict=True))
        short = [(flight, result) for flight, result in pairs if isinstance(flight, CohortFlight)]
        if short:
            self._cohorts.landed(short)
        if len(short) < len(pairs):
            self._committing.landed([(flight, result) for flight, result in pairs if isinstance(flight, Flight)])

    def expire(self) -> None:
        """Answers the waiting requests whose deadline has passed or whose caller has gone; lets retired versions go."""
        self._desk.expire()
        self._hotset.clear_retired()
        self._hotset.feed()

    @property
    def wants_load(self) -> bool:
        """Whether `take_loads` would give something."""
        return self._loading.wanted

    @property
    def wants_call(self) -> bool:
        """Whether `take_calls` has something to do."""
        return self._ticking.wanted or any(served.cohorts for served in self._desk.served())

    @property
    def wants_flight(self) -> bool:
        """Whether `take_flights` has something to do."""
        return self._committing.wanted or self._cohorts.wants_flight

    @property
    def unanswered(self) -> int:
        """Requests that have not had their reply."""
        return self._desk.unanswered

    def is_hot(self, key: SessionKey) -> bool:
        line = self._desk.lines.get(key)
        return line is not None and line.hot is not None

    def hot_count(self, model: str) -> int:
        models = self._desk.models[model]
        return sum(len(served.slots) for served in (*models, *models.retiring))

    # a step's way through its line

    def _advance(self, line: Line) -> None:
        """Starts whatever the line's first request needs next; answers those that need nothing more."""
        while line.queue and line.run is None and line.cohort is None and not line.loading and not line.starved:
            request = line.queue[0]
            try:
                dead = self._desk.dead(request, self._desk.now())
                if dead is not None:
                    self._desk.answer(line.queue.popleft(), dead)
                elif isinstance(request, Step) and (hot := self._continues(line, request)):
                    line.queue.popleft()
                    self._ticking.start_chunk(line, hot, request)
                elif line.pending or line.flight:
                    break  # the rest is decided on the store's record, after the session's own commits
                elif not line.read or request.number > line.read_number:
                    self._loading.want(line)
                else:
                    self._deciding.decide(line, request)
            except Exception:
                log.exception("internal error: a session's request failed")
                self._hotset.unwind_broken(line, [request])
        self._desk.rest(line)

    def _continues(self, line: Line, step: Step) -> Hot | None:
        """The ordinary case: the chunk goes where the hot copy stands. That a hot copy was stale is found out by
        the commit, whose compare-and-set fails."""
        hot = line.hot
        if hot is None or step.peek or step.distrusts_hot or hot.served.retired:
            return None
        if step.position is not None and step.position != hot.frontier:
            return None
        if hot.frontier.step + step.steps > MAX_STEP:
            return None
        return hot if line.log_fits(hot, step, self._desk.limits.log_steps(hot.served.spec.step_bytes)) else None
