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

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import CommitResult, Load, StoreError
from cellkeeper_service.errors import Reason, Rejection

from . import lifecycle
from .carry import Needs, carry_over, target_of
from .cohort import CohortCall, CohortFlight, FrameColumns
from .cohorts import Cohorts
from .committing import Committing
from .decision import Verdict, decide, not_found, refuse_foreign
from .desk import Desk
from .hot import Hot
from .hotset import HotSet
from .intake import Intake
from .limits import MAX_CALL_ITEMS, Clock, Limits
from .line import Applied, Changing, Erasing, Flight, Line
from .loading import Loading
from .requests import (
    CarryOver,
    Delete,
    Fork,
    GetSession,
    GetState,
    Open,
    Plant,
    Request,
    Reset,
    SessionReply,
    SetState,
    Step,
)
from .served import Models, Served
from .tick import EngineCall
from .ticking import Ticking

Call = EngineCall | CohortCall
AnyFlight = Flight | CohortFlight


class Sessions:
    """Every session that this replica is busy with or keeps hot."""

    def __init__(
        self,
        models: Mapping[str, Models],
        limits: Limits,
        clock: Clock,
        meter: Meter,
        mint: Callable[[], bytes] = lambda: os.urandom(16),
    ) -> None:
        """mint: makes the 16 random bytes of a new generation."""
        self._desk = Desk(models, limits, clock, meter, mint, self._advance)
        self._hotset = HotSet(self._desk)
        self._loading = Loading(self._desk, self._hotset)
        self._committing = Committing(self._desk, self._hotset)
        self._ticking = Ticking(self._desk, self._hotset, self._committing)
        self._intake = Intake(self._desk)
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

    def computed(self, call: Call) -> None:
        if isinstance(call, CohortCall):
            self._cohorts.computed(call)
        else:
            self._ticking.computed(call)

    def failed(self, call: Call) -> None:
        """The engine raised: the call's requests fail."""
        if isinstance(call, CohortCall):
            self._cohorts.failed(call)
        else:
            self._ticking.failed(call)

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
                self._decide(line, request)
        self._desk.rest(line)

    def _continues(self, line: Line, step: Step) -> Hot | None:
        """The ordinary case: the chunk goes where the hot copy stands. That a hot copy was stale is found out by
        the commit, whose compare-and-set fails."""
        hot = line.hot
        if hot is None or step.peek or step.distrusts_hot or hot.served.retired:
            return None
        if step.position is not None and step.position != hot.frontier:
            return None
        return hot if self._log_fits(line, hot, step) else None

    def _log_fits(self, line: Line, hot: Hot, step: Step) -> bool:
        acked = step.acked_at(hot.frontier.step)
        for item in line.pending:
            if isinstance(item, Applied):
                acked = min(acked, item.acked)
        return hot.log_steps_after(step.steps, acked) <= self._desk.limits.max_log_steps

    def _decide(self, line: Line, request: Request) -> None:
        """Decides the line's first request on the record that was read after it arrived."""
        record, models = line.record, self._desk.models[line.key.model]
        match request:
            case Step():
                self._decide_step(line, request, record, models)
            case GetState():
                self._decide_read(line, request, record, models)
            case GetSession():
                found = not_found() if record is None else SessionReply(record.header, line.hot is not None)
                self._conclude(line, request, found)
            case Open():
                self._conclude(line, request, lifecycle.open_session(record, request, models, self._birth()))
            case Reset():
                self._conclude(line, request, lifecycle.reset(record, request, models, self._birth()))
            case SetState():
                self._conclude(line, request, lifecycle.set_state(record, request, models, self._birth()))
            case CarryOver():
                self._carry_over(line, request, record, models)
            case Delete():
                self._conclude(line, request, lifecycle.delete(record, request))
            case Plant():
                self._conclude(line, request, lifecycle.plant(record, request, self._birth()))
            case Fork():
                self._plant(line, request, lifecycle.fork(record, request))
            case _:
                raise TypeError(f"no decision for {type(request).__name__}")

    def _decide_step(self, line: Line, step: Step, record: Record | None, models: Models) -> None:
        verdict = decide(record, step, models)
        if isinstance(verdict, Rejection):
            self._conclude(line, step, verdict)
        elif record is None:
            self._hotset.drop(line)
            if born := self._hotset.create(line, models.default):
                line.queue.popleft()
                self._ticking.start_chunk(line, born, step)
        elif verdict is Verdict.REPLAY:
            self._replay(line, record, models)
        elif hot := self._hot_at(line, record, models, step.acked_at(record.position.step)):
            if step.peek:
                line.queue.popleft()
                self._ticking.start_peek(line, hot, step)
            elif self._log_fits(line, hot, step):
                line.queue.popleft()
                self._ticking.start_chunk(line, hot, step)
            else:
                self._conclude(line, step, self._ack_behind(record))

    def _decide_read(self, line: Line, request: GetState, record: Record | None, models: Models) -> None:
        if record is None:
            self._conclude(line, request, not_found())
        elif refused := refuse_foreign(record, models):
            self._conclude(line, request, refused)
        elif hot := self._hot_at(line, record, models, record.position.step):
            line.queue.popleft()
            self._ticking.start_read(line, hot, request)

    def _carry_over(self, line: Line, request: CarryOver, record: Record | None, models: Models) -> None:
        decided = carry_over(record, request, models, self._birth())
        if record is None or not isinstance(decided, Needs):
            self._conclude(line, request, decided)
        elif decided is Needs.WINDOW:
            if self._ticking.carrying.start_rerun(line, request, target_of(request, models)):
                line.queue.popleft()
        elif hot := self._hot_at(line, record, models, record.position.step):
            line.queue.popleft()
            self._ticking.carrying.start_keep(line, hot, request)

    def _hot_at(self, line: Line, record: Record, models: Models, acked: int) -> Hot | None:
        """The hot copy at the record's position; None: something was started, or is awaited, that leads there."""
        if line.hot is not None and line.hot.frontier == record.position:
            line.hot.header = record.header
            return line.hot
        self._hotset.drop(line)
        hot = self._hotset.install_record(line, self._version(record, models), record)
        if hot is not None and record.log:
            self._ticking.start_rebuild(line, hot, record, [], acked)
            return None
        return hot

    def _replay(self, line: Line, record: Record, models: Models) -> None:
        """The first request, and the duplicates right behind it, get their outputs again from one rebuild."""
        self._hotset.drop(line)
        hot = self._hotset.install_record(line, self._version(record, models), record)
        if hot is None:
            return
        duplicates: list[Step] = []
        while line.queue and isinstance(step := line.queue[0], Step) and step.number <= line.read_number:
            if decide(record, step, models) is not Verdict.REPLAY:
                break
            line.queue.popleft()
            duplicates.append(step)
        self._ticking.start_rebuild(line, hot, record, duplicates, record.position.step)

    def _conclude(self, line: Line, request: Request, decided: Any) -> None:
        """Answers the line's first request, or has written what was decided before it is answered."""
        line.queue.popleft()
        if isinstance(decided, lifecycle.Write):
            self._hotset.drop(line)
            self._committing.add(line, Changing(request, decided))
        elif isinstance(decided, lifecycle.Erase) and isinstance(request, Delete):
            self._hotset.drop(line)
            self._committing.add(line, Erasing(request))
        else:
            self._desk.answer(request, decided)

    def _plant(self, line: Line, fork: Fork, source: Record | Rejection) -> None:
        """The fork goes on in the target's line."""
        line.queue.popleft()
        copy, otherwise = (None, source) if isinstance(source, Rejection) else (source, None)
        self._desk.leave(fork)
        self.submit(Plant(fork.target, fork.deadline, fork.done, fork.request_id, copy, otherwise))

    def _version(self, record: Record, models: Models) -> Served:
        served = models.find(record.header.fingerprint)
        if served is None:
            raise LookupError("a record was decided to be served whose model version is not")
        return served

    def _birth(self) -> lifecycle.Birth:
        limits, clock = self._desk.limits, self._desk.clock
        return lifecycle.Birth(self._desk.mint(), clock.wall_ms(), limits.default_ttl_ms)

    def _ack_behind(self, record: Record) -> Rejection:
        logged = record.position.step - record.header.checkpoint_step
        text = (
            f"acked: the log holds {logged} steps of at most {self._desk.limits.max_log_steps}, and the replies to "
            "them are not acknowledged; expected an `acked` nearer to the position"
        )
        return Rejection(Reason.ACK_BEHIND, text, field="acked", position=record.position)
