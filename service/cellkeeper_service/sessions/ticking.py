"""Computing: runs enter ticks slice by slice, and what a finished run means for its session."""

from __future__ import annotations

import logging

from cellkeeper_service.domain.position import Position, advance
from cellkeeper_service.domain.record import Record
from cellkeeper_service.errors import Reason, Rejection

from .answers import non_finite, reply_of
from .carrying import Carrying
from .committing import Committing
from .desk import Desk
from .hot import Checkpoint, Hot
from .hotset import HotSet
from .line import Applied, Line
from .planner import enqueue, plan
from .requests import CarryOver, GetState, Request, StateReply, Step
from .run import Collect, Kind, Run
from .tick import NO_OUTPUTS, EngineCall

log = logging.getLogger(__name__)


class Ticking:
    def __init__(self, desk: Desk, hotset: HotSet, committing: Committing) -> None:
        self._desk = desk
        self._hotset = hotset
        self._committing = committing
        self.carrying = Carrying(desk, hotset, committing)

    # starting

    def start_chunk(self, line: Line, hot: Hot, step: Step) -> None:
        run = Run(line, hot, Kind.CHUNK, step.data, step.steps, [Collect(step, 0, step.steps)], step.wanted)
        if hot.checkpoint_due or hot.must_checkpoint(
            step.steps, self._desk.limits.log_steps(hot.served.spec.step_bytes)
        ):
            run.checkpoint_at = 0
        self._start(run)

    def start_peek(self, line: Line, hot: Hot, step: Step) -> None:
        steps = step.all_steps
        run = Run(line, hot, Kind.PEEK, step.data, steps, [Collect(step, 0, steps)], step.wanted)
        run.unfed = steps - step.steps
        self._start(run)

    def start_read(self, line: Line, hot: Hot, request: GetState) -> None:
        self._start(Run(line, hot, Kind.READ, b"", 0, [Collect(request, 0, 0)], NO_OUTPUTS))

    def start_rebuild(self, line: Line, hot: Hot, record: Record, duplicates: list[Step], acked: int) -> None:
        """Computes the record's log. `duplicates` are chunks that lie within it: they get their outputs once more.
        Where a checkpoint is due, the state at step `acked` becomes its candidate."""
        start = record.header.checkpoint_step
        collects = [
            Collect(step, step.position.step - start, step.position.step - start + step.steps)
            for step in duplicates
            if step.position is not None
        ]
        wanted = NO_OUTPUTS.union(*(step.wanted for step in duplicates))
        run = Run(line, hot, Kind.REBUILD, record.log, record.position.step - start, collects, wanted)
        cuts = {c.last for c in collects if isinstance(c.request, Step) and c.request.wants_state}
        if hot.checkpoint_due and start < acked <= record.position.step:
            run.checkpoint_at = acked - start
            cuts.add(run.checkpoint_at)
        run.cuts = sorted(cuts)
        self._start(run)

    def _start(self, run: Run) -> None:
        run.line.run = run
        enqueue(run, self._desk.limits.tick)

    # in the tick

    @property
    def wanted(self) -> bool:
        return any(served.singles or served.longs for served in self._desk.served())

    def take(self) -> list[EngineCall]:
        calls = []
        for served in self._desk.served():
            if served.singles or served.longs:
                calls.extend(plan(served, self._desk.limits.tick, self._alive))
        self._hotset.feed()
        return calls

    def _alive(self, run: Run) -> bool:
        """False for a run that is not to be computed; its request has been answered then."""
        if run.cancelled:
            return False
        if run.kind is Kind.REBUILD or (run.at > 0 and not run.unfed):
            return True
        request, now = run.collects[0].request, self._desk.now()
        why = self._desk.dead(request, now)
        if why is None:
            if isinstance(request, Step) and run.at == 0:
                request.started_at = now
            return True
        run.line.run = None
        self._hotset.drop_unborn(run.line)
        self._desk.answer(request, why)
        self._desk.advance(run.line)
        return False

    def computed(self, call: EngineCall) -> None:
        name = call.served.spec.name
        if call.steps:
            self._desk.meter.tick(name, len(call.runs), call.steps)
        if call.change is not None:
            self._desk.meter.state_change(name, *call.change)
        now = self._desk.now()
        finite = None if call.computed is None else call.computed.finite
        for index, run in enumerate(call.runs):
            run.in_call = False
            if run.cancelled:
                call.served.slots.free(run.hot.slot)
                continue
            try:
                if finite is not None and not finite[index]:
                    self._not_finite(run)
                else:
                    self._go_on(call, run, index, now)
            except Exception:
                log.exception("internal error: a session's request failed")
                broken = [collect.request for collect in run.collects] or [*run.line.queue][:1]
                run.line.run = None
                self._hotset.unwind_broken(run.line, broken)
                self._desk.advance(run.line)
        self._hotset.feed()

    def _go_on(self, call: EngineCall, run: Run, index: int, now: float) -> None:
        """What follows from run number `index` of a call that gave a finite result for it."""
        call.collect(run, index)
        run.at += call.steps
        if run.hungry:
            run.feed(call.last_prediction(index))
        if run.at < run.steps:
            enqueue(run, self._desk.limits.tick)
        else:
            run.line.run = None
            self._finish(run, now)
            self._desk.advance(run.line)

    def parts_of(self, call: EngineCall) -> list[EngineCall]:
        """The call's halves; nothing where it has one run."""
        middle = len(call.runs) // 2
        halves = (call.runs[:middle], call.runs[middle:]) if middle else ()
        return [EngineCall(call.served, call.steps, runs, False) for runs in halves]

    def failed(self, call: EngineCall, why: Rejection) -> None:
        for run in call.runs:
            run.in_call = False
            if run.cancelled:
                call.served.slots.free(run.hot.slot)
            else:
                self._fail(run, why)
        self._hotset.feed()

    def _not_finite(self, run: Run) -> None:
        """The row fails alone and keeps its last state. This rejection, too, is decided on the store's record, for
        the hot copy may be stale."""
        line = run.line
        step = run.collects[0].request if run.collects else None
        if isinstance(step, CarryOver) and run.kind is Kind.RERUN:
            self._desk.meter.non_finite(line.key.model)
            text = "inputs: the state after the window would not be finite; the session stays as it is"
            self._fail(run, Rejection(Reason.NON_FINITE_RESULT, text, field="inputs"))
            return
        if run.kind is Kind.REBUILD or not isinstance(step, Step):
            self._desk.meter.non_finite(line.key.model)
            text = "the session's committed inputs did not give a finite state"
            self._fail(run, Rejection(Reason.INTERNAL_ERROR, text))
            return
        line.run = None
        on_record = line.read and step.number <= line.read_number and not line.pending and not line.flight
        if on_record:
            position = run.hot.frontier if run.hot.exists else None
            self._hotset.drop_unborn(line)
            self._desk.meter.non_finite(line.key.model)
            self._desk.answer(step, non_finite(run, step, position))
        else:
            step.distrusts_hot = True
            self._desk.requeue(line, [step])
        self._desk.advance(line)

    def _fail(self, run: Run, why: Rejection) -> None:
        """The run's requests fail; the session goes on from the store's record."""
        line = run.line
        failed: list[Request] = [collect.request for collect in run.collects]
        if not failed and line.queue:
            failed = [line.queue.popleft()]  # the request that the rebuild was for
        line.run = None
        behind = self._hotset.unwind(line)
        self._desk.requeue(line, behind)
        line.forget_reading()
        for request in failed:
            self._desk.answer(request, why)
        self._desk.advance(line)

    # finished

    def _finish(self, run: Run, now: float) -> None:
        match run.kind:
            case Kind.CHUNK:
                self._finish_chunk(run, now)
            case Kind.PEEK:
                self._finish_peek(run, now)
            case Kind.REBUILD:
                self._finish_rebuild(run, now)
            case Kind.KEEP | Kind.RERUN:
                self.carrying.finish(run)
            case Kind.READ:
                collect = run.collects[0]
                reply = StateReply(run.hot.served, run.hot.frontier, collect.state or b"")
                self._desk.answer(collect.request, reply)

    def _finish_chunk(self, run: Run, now: float) -> None:
        hot, line, collect = run.hot, run.line, run.collects[0]
        step = collect.request
        if not isinstance(step, Step):
            raise TypeError("the request of a chunk is a step")
        before = hot.frontier
        hot.ahead = advance(before, run.data, hot.served.spec.step_bytes)
        hot.current = 1 - hot.current
        if run.checkpoint_state is not None:
            hot.checkpoint = Checkpoint(before.step, before.head, run.checkpoint_state, bytearray())
        if hot.checkpoint is not None:
            hot.checkpoint.tail += run.data
        step.computed_at = now
        reply = reply_of(step, collect, hot, hot.ahead, created=hot.created)
        hot.created = False
        hot.served.slots.used(line)
        self._committing.add(line, Applied(step, reply, hot.ahead, step.acked_at(before.step)))

    def _finish_peek(self, run: Run, now: float) -> None:
        step = run.collects[0].request
        if not isinstance(step, Step):
            raise TypeError("the request of a peek is a step")
        step.computed_at = now
        after = advance(run.hot.frontier, run.data, run.hot.served.spec.step_bytes)
        self._desk.answer(step, reply_of(step, run.collects[0], run.hot, after))

    def _finish_rebuild(self, run: Run, now: float) -> None:
        line, hot, record = run.line, run.hot, run.line.record
        if record is None:
            raise RuntimeError("a rebuild's record was forgotten before its end")
        self._desk.meter.rebuilt(line.key.model, run.steps)
        if (unpaid := self._unpaid(run)) > 0:
            self._desk.owe(line.key.tenant, unpaid)
        hot.current = 1 - hot.current
        start = record.header.checkpoint_step
        if run.checkpoint_state is not None and run.checkpoint_at is not None:
            at = start + run.checkpoint_at
            tail = bytearray(record.inputs(at, record.position.step))
            hot.checkpoint = Checkpoint(at, record.head_at(at), run.checkpoint_state, tail)
        for request in line.queue:
            if isinstance(request, Step) and request.number <= line.read_number:
                request.load_seconds = now - max(line.load_started, request.arrived)
        for collect in run.collects:
            step, end = collect.request, start + collect.last
            if isinstance(step, Step):
                step.started_at = step.computed_at = now
                step.load_seconds = now - max(line.load_started, step.arrived)
                after = Position(record.position.generation, end, record.head_at(end))
                self._desk.answer(step, reply_of(step, collect, hot, after, replayed=True))

    def _unpaid(self, run: Run) -> int:
        """Time steps of a rebuild that nobody asked for and that its session's tenant caused: all those around
        duplicates, and of another rebuild what an acknowledging client would not have left in the log. To read the
        rest again is the server's own affair: it has forgotten the state."""
        if run.collects:
            return run.steps - sum(collect.last - collect.first for collect in run.collects)
        return run.steps - self._desk.limits.max_log_steps // 2
