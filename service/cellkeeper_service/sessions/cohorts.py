"""The short way of a frame's items: taken in, computed, committed and answered by the cohort. See cohort.py."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

import numpy as np

from cellkeeper_service.domain.meter import StepTimes
from cellkeeper_service.domain.position import POSITION_BYTES
from cellkeeper_service.domain.record import Header
from cellkeeper_service.domain.store import Commit, CommitResult, Outcome
from cellkeeper_service.errors import Reason, Rejection

from .cohort import Cohort, CohortCall, CohortFlight, Columns, Replies
from .desk import Desk
from .hot import Hot
from .hotset import HotSet
from .line import Line
from .planner import SAMPLE_EVERY_CALLS
from .served import Served

_STEPS = Struct("<16xQ16xQ")  # step and checkpoint step of a packed header


class Cohorts:
    def __init__(self, desk: Desk, hotset: HotSet) -> None:
        self._desk = desk
        self._hotset = hotset
        self._computed: list[Cohort] = []  # not sent to the store yet

    # taking in

    def take_in(self, columns: Columns) -> list[int]:
        """Takes the items that can go the short way; the others are returned."""
        held_bytes = self._held_bytes(columns)
        if not self._desk.has_room(len(columns.sessions), held_bytes):
            return list(range(len(columns.sessions)))
        left: list[int] = []
        cohort: Cohort | None = None
        now = self._desk.now()
        lines, positions, tenant, model = self._desk.lines, columns.positions, columns.tenant, columns.model
        acks = np.frombuffer(columns.acked, "<u8").tolist() if columns.acked else None
        max_log_steps = self._desk.limits.max_log_steps
        for item, session in enumerate(columns.sessions):
            line = lines.get((tenant, model, session))  # type: ignore[call-overload]
            hot = None if line is None else line.hot
            if hot is None or not _is_free(line, hot):
                left.append(item)
                continue
            packed = hot.header.packed
            if packed[:32] != positions[32 * item : 32 * item + 32]:
                left.append(item)
                continue
            step, checkpoint_step = _STEPS.unpack_from(packed)
            acked = step if acks is None else acks[item]
            logged = step - checkpoint_step
            due = logged >= hot.served.due_steps or logged >= max_log_steps
            if acked > step or (due and acked < step):
                left.append(item)
                continue
            if cohort is None or cohort.served is not hot.served or len(cohort) == cohort.served.engine.max_batch:
                cohort = Cohort(columns, hot.served, [], [], [], [], now)
                hot.served.cohorts.append(cohort)
            if due:
                cohort.due.append(len(cohort.items))
            cohort.items.append(item)
            cohort.lines.append(line)
            cohort.rows.append(2 * hot.slot + hot.current)
            line.cohort = cohort
        self._desk.enter_many(len(columns.sessions) - len(left), held_bytes)
        return left

    def _held_bytes(self, columns: Columns) -> int:
        """Bytes that one item and its reply hold."""
        spec = self._desk.models[columns.model].default.spec
        return spec.step_bytes + self._desk.output_bytes(columns.model, columns.wanted)

    # in the tick

    def take(self, served: Served) -> CohortCall | None:
        """The call of this version's next tick: as many of the oldest cohorts as fit into one batch."""
        chosen: list[Cohort] = []
        room, now = served.engine.max_batch, self._desk.now()
        while served.cohorts and len(served.cohorts[0]) <= room:
            cohort = served.cohorts.popleft()
            why = self._why_not(cohort, now)
            if why is not None:
                self._refuse(cohort, range(len(cohort)), why)
            else:
                cohort.started = now
                chosen.append(cohort)
                room -= len(cohort)
        if not chosen:
            return None
        served.calls += 1
        return CohortCall(served, chosen, self._desk.clock.wall_ms(), served.calls % SAMPLE_EVERY_CALLS == 0)

    def _why_not(self, cohort: Cohort, now: float) -> Rejection | None:
        if cohort.columns.gone:
            return Rejection(Reason.CALLER_GONE, "the caller went away before the request was begun")
        return self._desk.late(cohort.columns.deadline, now)

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

    def failed(self, call: CohortCall) -> None:
        """The engine raised."""
        why = Rejection(Reason.INTERNAL_ERROR, "internal error; the server's log has the cause")
        for cohort in call.cohorts:
            for line in cohort.lines:
                self._hotset.drop(line)
                line.forget_reading()
            self._refuse(cohort, range(len(cohort)), why)
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
            late = self._desk.late(cohort.columns.deadline, now)
            if late is None:
                flights += [self._flight(cohort, index) for index in going]
            else:
                self._refuse(cohort, going, late)
                self._hotset.feed()
        return flights

    def _flight(self, cohort: Cohort, index: int) -> CohortFlight:
        line = cohort.lines[index]
        if line.hot is None:
            raise RuntimeError("a session lost its hot copy while a step of it was computed")
        line.read, line.record = False, None
        checkpoint = cohort.checkpoints.get(index)
        commit = Commit(line.key, line.hot.header, cohort.headers[index], cohort.inputs[index], checkpoint)
        return CohortFlight(cohort, index, commit)

    def landed(self, results: Sequence[tuple[CohortFlight, CommitResult]]) -> None:
        done: dict[Cohort, list[int]] = {}
        committed = Outcome.COMMITTED
        for flight, result in results:
            if result.outcome is committed:
                cohort, index, commit = flight
                done.setdefault(cohort, []).append(index)
                _committed(cohort.lines[index], commit.header)
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
        times = StepTimes(queued, 0.0, computed, now - cohort.computed, now - cohort.arrived)
        meter.steps_done(columns.model, count, times)
        self._desk.leave_many(count, self._held_bytes(columns), now)
        positions = [header.packed[:POSITION_BYTES] for header in headers]
        columns.reply(Replies(items, positions, outputs, queued, computed))

    # otherwise

    def _refuse(self, cohort: Cohort, indices: Sequence[int], why: Rejection) -> None:
        held_bytes = self._held_bytes(cohort.columns)
        for index in indices:
            line = cohort.lines[index]
            line.cohort = None
            self._desk.leave_refused(held_bytes, why)
            cohort.columns.refuse(cohort.items[index], why)
            self._desk.advance(line)

    def _the_long_way(self, cohort: Cohort, indices: Sequence[int], outcome: Outcome | None = None) -> None:
        """The items become requests, first in their lines, to be decided on a reading that is yet to be made. outcome:
        of their commit; None: their result was not finite."""
        held_bytes = self._held_bytes(cohort.columns)
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
                step.gone = cohort.columns.gone
                self._desk.leave_some(1, held_bytes)
                self._desk.enter_first(line, step, cohort.arrived)
            self._desk.advance(line)


def _committed(line: Line, header: Header) -> None:
    line.cohort = None
    hot = line.hot
    if hot is None:
        raise RuntimeError("a session lost its hot copy while a step of it was committed")
    hot.header, hot.ahead = header, None
    hot.current = 1 - hot.current
    hot.served.slots.used(line)


def _is_free(line: Line, hot: Hot) -> bool:
    """Whether the hot session has nothing to do and nothing pending."""
    return (
        line.cohort is None
        and not line.queue
        and line.run is None
        and not line.pending
        and line.flight is None
        and not line.loading
        and not line.starved
        and not hot.served.retired
        and hot.exists
        and hot.seed is None
        and hot.checkpoint is None
        and (hot.ahead is None or hot.ahead == hot.header.position)
    )
