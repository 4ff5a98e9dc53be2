"""The short way of single steps: computed, committed and answered by the cohort. See cohort.py; for which steps,
intake.py."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from cellkeeper_service.domain.meter import SAMPLE_EVERY_CALLS, StepTimes
from cellkeeper_service.domain.position import POSITION_BYTES
from cellkeeper_service.domain.record import Header
from cellkeeper_service.domain.store import Commit, CommitResult, Outcome
from cellkeeper_service.errors import Rejection, internal_error

from .cohort import Cohort, CohortCall, CohortFlight, Replies
from .desk import Desk, caller_gone
from .hotset import HotSet
from .line import Line
from .served import Served

log = logging.getLogger(__name__)


class Cohorts:
    def __init__(self, desk: Desk, hotset: HotSet) -> None:
        self._desk = desk
        self._hotset = hotset
        self._computed: list[Cohort] = []  # not sent to the store yet

    # in the tick

    def take(self, served: Served) -> CohortCall | None:
        """The call of this version's next tick: as many of the oldest cohorts as fit into one batch."""
        chosen: list[Cohort] = []
        room, now = served.engine.max_batch, self._desk.now()
        while served.cohorts and len(served.cohorts[0]) <= room:
            cohort = served.cohorts.popleft()
            columns = cohort.columns
            if columns.gone or now >= columns.deadline:
                self._refuse_dead(cohort, now)
            if len(cohort):
                cohort.started = now
                chosen.append(cohort)
                room -= len(cohort)
        if not chosen:
            return None
        served.calls += 1
        return CohortCall(served, chosen, self._desk.clock.wall_ms(), served.calls % SAMPLE_EVERY_CALLS == 0)

    def _refuse_dead(self, cohort: Cohort, now: float) -> None:
        """Those items leave the cohort that nobody waits for any more."""
        dead: dict[int, Rejection] = {}
        for index, item in enumerate(cohort.items):
            deadline, gone = cohort.columns.fate(item)
            why = caller_gone() if gone else self._desk.late(deadline, now)
            if why is not None:
                dead[index] = why
        out = cohort.take_out(dead)
        for index, why in enumerate(dead.values()):
            self._refuse(out, [index], why)

    def computed(self, call: CohortCall) -> None:
        name, now = call.served.spec.name, self._desk.now()
        self._desk.meter.tick(name, call.batch, 1)
        if call.change is not None:
            self._desk.meter.state_change(name, *call.change)
        start = 0
        for cohort in call.cohorts:
            cohort.computed = now
            if call.finite is not None:
                finite = call.finite[start : start + len(cohort)]
                self._the_long_way(cohort, np.flatnonzero(~finite).tolist())
            start += len(cohort)
            if len(cohort.failed) < len(cohort):
                self._computed.append(cohort)

    def failed(self, call: CohortCall, why: Rejection | None) -> None:
        """The engine raised. why: of the engine as a whole; None: of several items, whoever is at fault is found the
        long way."""
        for cohort in call.cohorts:
            for line in cohort.lines:
                self._hotset.drop(line)
                line.forget_reading()
            if why is not None or call.batch == 1:
                self._refuse(cohort, range(len(cohort)), why or internal_error())
            else:
                self._the_long_way(cohort, range(len(cohort)))
        self._hotset.feed()

    # committing

    @property
    def wants_flight(self) -> bool:
        return bool(self._computed)

    def take_flights(self, room: int) -> list[CohortFlight]:
        """About `room` commits at the most. Nothing is sent after its deadline."""
        flights: list[CohortFlight] = []
        if not self._computed:
            return flights
        now = self._desk.now()
        while self._computed and len(flights) < room:
            cohort = self._computed.pop(0)
            failed = set(cohort.failed)
            going = [index for index in range(len(cohort)) if index not in failed]
            if now >= cohort.columns.deadline:
                going = self._refuse_late(cohort, going, now)
            flights += [self._flight(cohort, index) for index in going]
        return flights

    def _refuse_late(self, cohort: Cohort, going: list[int], now: float) -> list[int]:
        """The others."""
        in_time = []
        for index in going:
            late = self._desk.late(cohort.columns.fate(cohort.items[index])[0], now)
            if late is None:
                in_time.append(index)
            else:
                self._refuse(cohort, [index], late)
        self._hotset.feed()
        return in_time

    def _flight(self, cohort: Cohort, index: int) -> CohortFlight:
        line = cohort.lines[index]
        if line.hot is None:
            raise RuntimeError("a session lost its hot copy while a step of it was computed")
        line.forget_reading()
        checkpoint = cohort.checkpoints.get(index)
        commit = Commit(line.key, line.hot.header, cohort.headers[index], cohort.inputs[index], checkpoint)
        return CohortFlight(cohort, index, commit)

    def landed(self, results: Sequence[tuple[CohortFlight, CommitResult]]) -> None:
        done: dict[Cohort, list[int]] = {}
        committed = Outcome.COMMITTED
        for flight, result in results:
            if result.outcome is committed:
                cohort, index, commit = flight
                try:
                    _committed(cohort.lines[index], commit.header)
                except Exception:
                    log.exception("internal error: a session's request failed")
                    self._refuse(cohort, [index], internal_error())
                else:
                    done.setdefault(cohort, []).append(index)
            else:
                self._not_committed(flight, result)
        for cohort, indices in done.items():
            self._answer(cohort, indices)
        for cohort, indices in done.items():
            for index in indices:
                line = cohort.lines[index]
                if line.queue:
                    self._desk.advance(line)
        self._hotset.feed()

    def _not_committed(self, flight: CohortFlight, result: CommitResult) -> None:
        cohort, index = flight.cohort, flight.number
        self._desk.meter.committed(result.outcome.value, 1)
        if result.outcome is Outcome.REFUSED:
            self._refuse(cohort, [index], self._desk.store_unavailable(result.message))
            return
        self._hotset.drop(cohort.lines[index])
        self._the_long_way(cohort, [index], result.outcome)

    def _answer(self, cohort: Cohort, indices: list[int]) -> None:
        columns, count = cohort.columns, len(indices)
        items, headers, outputs = cohort.items, cohort.headers, cohort.outputs
        if count < len(cohort):
            items = [items[index] for index in indices]
            headers = [headers[index] for index in indices]
            outputs = {name: values[indices] for name, values in outputs.items()}
        queued, computed = cohort.started - cohort.arrived, cohort.computed - cohort.started
        meter, now = self._desk.meter, self._desk.now()
        meter.committed(Outcome.COMMITTED.value, count)
        for index in indices if cohort.checkpoints else ():
            if index in cohort.checkpoints:
                meter.checkpointed(columns.model)
        if columns.arrivals:
            for index in indices:
                meter.step_done(columns.model, 1, _times(cohort, cohort.arrival(index), now), replayed=False)
        else:
            meter.steps_done(columns.model, count, _times(cohort, cohort.arrived, now))
        self._desk.leave_many(count, self._desk.single_bytes(columns.model, columns.wanted), now)
        positions = [header.packed[:POSITION_BYTES] for header in headers]
        columns.reply(Replies(items, positions, outputs, queued, computed))

    # otherwise

    def _refuse(self, cohort: Cohort, indices: Sequence[int], why: Rejection) -> None:
        held_bytes = self._desk.single_bytes(cohort.columns.model, cohort.columns.wanted)
        for index in indices:
            line = cohort.lines[index]
            line.cohort = None
            self._desk.leave_refused(held_bytes, why)
            cohort.columns.refuse(cohort.items[index], why)
            self._desk.advance(line)

    def _the_long_way(self, cohort: Cohort, indices: Sequence[int], outcome: Outcome | None = None) -> None:
        """The items become requests, first in their lines, to be decided on a reading that is yet to be made. outcome:
        of their commit; None: their result was not finite."""
        held_bytes = self._desk.single_bytes(cohort.columns.model, cohort.columns.wanted)
        cohort.failed.extend(indices)
        for index in indices:
            line = cohort.lines[index]
            line.cohort = None
            line.forget_reading()
            try:
                step = cohort.columns.step(cohort.items[index])
            except Rejection as why:
                self._desk.leave_refused(held_bytes, why)
                cohort.columns.refuse(cohort.items[index], why)
            else:
                step.conflicts, step.unknowns = int(outcome is Outcome.CONFLICT), int(outcome is Outcome.UNKNOWN)
                step.distrusts_hot = outcome is None
                _, step.gone = cohort.columns.fate(cohort.items[index])
                self._desk.leave_some(1, held_bytes)
                self._desk.enter_first(line, step, cohort.arrival(index))
            self._desk.advance(line)


def _times(cohort: Cohort, arrived: float, now: float) -> StepTimes:
    queued, computed = cohort.started - arrived, cohort.computed - cohort.started
    return StepTimes(queued, 0.0, computed, now - cohort.computed, now - arrived)


def _committed(line: Line, header: Header) -> None:
    line.cohort = None
    hot = line.hot
    if hot is None:
        raise RuntimeError("a session lost its hot copy while a step of it was committed")
    hot.header, hot.ahead = header, None
    hot.current = 1 - hot.current
    hot.served.slots.used(line)
