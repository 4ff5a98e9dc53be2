"""Starts what has to be computed for a request, and takes the results into its session."""

from __future__ import annotations

from collections.abc import Sequence

from cellkeeper_service.domain.engine import Computed
from cellkeeper_service.domain.position import Position, advance, first_position
from cellkeeper_service.domain.record import Record
from cellkeeper_service.errors import Reason, Rejection

from .batch import Batch
from .carry_over import carried, target_retired
from .context import Context
from .generation_requests import CarryOver, Policy
from .requests import COMMITTING, READY, Computable, GetState, LogReplay, Request, StateReply, Step
from .session import CachedState, Checkpoint, SessionState


def start_chunk(cached: CachedState, step: Step) -> None:
    cached.start(step, step.data, step.steps, step.wanted, (step.steps,) if step.wants_state else ())
    if cached.checkpoint is None and cached.checkpoint_due(step.steps):
        step.checkpoint_at = 0


def start_log_replay(cached: CachedState, record: Record, duplicates: list[Step], acked: int) -> None:
    """Computes the record's log. `duplicates` lie within it and get their outputs again. If a checkpoint is due, the
    state at step `acked` becomes its candidate."""
    start, end = record.header.checkpoint_step, record.position.step
    replay = LogReplay(cached.session.key, float("inf"), no_reply, record)
    for step in duplicates:
        if (asked := step.position_in(record)) is not None:
            replay.duplicates[step] = asked.step - start
            step.pieces, step.end_state, step.status = (), None, READY
    names = frozenset[str]().union(*(step.wanted for step in duplicates))
    ends = {first + step.steps for step, first in replay.duplicates.items() if step.wants_state}
    checkpoint_at = acked - start if end - start >= cached.version.due_steps and start < acked <= end else None
    if checkpoint_at is not None:
        ends.add(checkpoint_at)
    cached.start(replay, record.log, end - start, names, ends)
    replay.checkpoint_at = checkpoint_at


def no_reply(requests: Sequence[Request]) -> None:
    """The `done` of a log replay, which no client has sent. (No lambda: the explorer pickles requests.)"""


def end_dead(context: Context, cached: CachedState, work: Computable) -> bool:
    """Ends work that nobody waits for, and finishes its request. Returns False if the work goes on: once started, all
    work does but forecasts, whose many steps are of no use to anybody else."""
    why = context.dead(work)
    if why is None or (work.computed > 0 and not work.unfed):
        return False
    session, cached.work = cached.session, None
    drop_uncommitted(context, session)
    context.finish(work, why)
    context.ready[session] = None
    return True


def drop_uncommitted(context: Context, session: SessionState) -> None:
    """Drops the state of a new generation for which no commit was started."""
    if session.cached is not None and not session.cached.exists and not session.has_uncommitted:
        context.drop(session)


def take_slice(context: Context, batch: Batch, row: int, cached: CachedState, work: Computable) -> None:
    """Takes one finite row of a batch: the work's outputs and states, and what its session does next."""
    session = cached.session
    end = work.computed + batch.steps
    before, after = batch.states_before.get(row), batch.states_after.get(row)
    if batch.computed is None:
        pass  # the batch only read states
    elif isinstance(work, LogReplay):
        for step, first in work.duplicates.items():
            low, high = max(work.computed, first), min(end, first + step.steps)
            if low < high:
                step.pieces = (*step.pieces, (batch.computed, row, low - work.computed, high - work.computed))
            if step.wants_state and first + step.steps == end:
                step.end_state = after
    elif work.names:
        work.pieces = (*work.pieces, (batch.computed, row, 0, batch.steps))
    if before is not None:
        work.checkpoint_state = before
    if after is not None:
        work.end_state = after
        if end == work.checkpoint_at:
            work.checkpoint_state = after
    work.computed = end
    if 0 < work.unfed == work.to_compute - end:
        _feed(cached, work, batch.computed, row)
    if end < work.to_compute:
        work.status = READY
        cached.ready.append(cached)
        return
    cached.work = None
    match work:
        case Step() if not work.peek:
            finish_chunk(context, cached, work)
            return
        case Step():
            work.computed_at, work.version = context.now, cached.version
            work.after = advance(cached.frontier, work.inputs, cached.version.step_bytes)
            context.finish(work, None)
        case LogReplay():
            _finish_log_replay(context, cached, work)
        case GetState():
            context.finish(work, StateReply(cached.version, cached.frontier, work.end_state or b""))
        case CarryOver():
            _finish_carry_over(context, cached, work)
    context.ready[session] = None  # even if nothing waits: `settle` lets the reading go


def _feed(cached: CachedState, work: Computable, computed: Computed | None, row: int) -> None:
    """Appends the prediction after the last time step as the next one's input."""
    spec = cached.version.spec
    if spec.feedback is None or not isinstance(work, Step) or work.rollout is None or computed is None:
        raise RuntimeError("a forecast is to be computed that cannot be")
    known = work.rollout.known[work.rollout.steps - work.unfed]
    following = spec.feedback.next_input(computed.outputs["prediction"][-1, row], known)
    work.inputs += following.astype(spec.input.numpy_dtype).tobytes()
    work.unfed -= 1


def finish_chunk(context: Context, cached: CachedState, step: Step) -> None:
    """A chunk is computed: advances the frontier. The reply waits for the commit."""
    before, at, version, session = cached.frontier, cached.step, cached.version, cached.session
    cached.frontier = step.after = advance(before, step.data, version.step_bytes)
    step.at, cached.step = at, at + step.steps
    cached.current ^= 1
    if step.checkpoint_state is not None:
        cached.checkpoint = Checkpoint(at, before.head, step.checkpoint_state, bytearray())
    if cached.checkpoint is not None:
        cached.checkpoint.tail += step.data
    step.computed_at, step.version = context.now, version
    step.created = at == 0 and not cached.exists  # the first chunk of a generation that is not in the store yet
    context.caches[version].used(cached)
    step.status = COMMITTING
    session.pending.append(step)
    if session.in_flight is None:
        context.to_commit[session] = None
    if session.queue:
        context.ready[session] = None


def _finish_log_replay(context: Context, cached: CachedState, replay: LogReplay) -> None:
    session, record, now = cached.session, replay.record, context.now
    context.meter.rebuilt(session.key.model, replay.to_compute)
    # The tenant pays for steps that it caused without asking for their outputs: all those around duplicates, and those
    # that an acknowledging client would not have left in the log. The others are the server's: it forgot the state.
    asked_for = sum(step.steps for step in replay.duplicates) or context.limits.max_log_steps // 2
    if replay.to_compute > asked_for:
        context.owe(session.key.tenant, replay.to_compute - asked_for)
    cached.current ^= 1
    start = record.header.checkpoint_step
    if replay.checkpoint_state is not None and replay.checkpoint_at is not None:
        at = start + replay.checkpoint_at
        tail = bytearray(record.inputs(at, record.position.step))
        cached.checkpoint = Checkpoint(at, record.head_at(at), replay.checkpoint_state, tail)
    session.note_load_seconds([*replay.duplicates, *session.queue], now)
    for step, first in replay.duplicates.items():
        end = start + first + step.steps
        step.started_at = step.computed_at = now
        step.version, step.replayed = cached.version, True
        step.after = Position(record.position.generation, end, record.head_at(end))
        context.finish(step, None)


def _finish_carry_over(context: Context, cached: CachedState, request: CarryOver) -> None:
    """The state is computed: commits a new generation that begins with it."""
    session, state = cached.session, request.end_state
    reading = session.reading
    if reading is None or not isinstance(reading.found, Record) or state is None:
        raise RuntimeError("a session is carried over whose record or state was forgotten")
    models = context.models[session.key.model]
    record, target = reading.found, models.find(request.target)
    if target is None:
        context.drop(session)
        context.finish(request, target_retired(request, models))
        return
    if request.policy is Policy.KEEP:
        at = first_position(context.mint(), record.position.step)
    else:
        at = advance(cached.header.position, request.data, target.step_bytes)
    context.drop(session)
    context.commit_soon(session, request, carried(record, request, target, at, state, context.clock.wall_ms()))


def not_finite(context: Context, cached: CachedState, work: Computable) -> None:
    """The row fails alone, and its session keeps the state before. A step is rejected only on the store's record, since
    the cached state may be stale."""
    session = cached.session
    if isinstance(work, Step) and not (session.is_read_for(work) and not session.has_uncommitted):
        cached.work, work.distrusts_hot = None, True
        context.requeue(session, [work])
        context.ready[session] = None
        return
    context.meter.non_finite(session.key.model)
    if isinstance(work, Step):
        position = cached.frontier if cached.exists else None
        cached.work = None
        drop_uncommitted(context, session)
        context.finish(work, _non_finite(work, position))
        context.ready[session] = None
    elif isinstance(work, CarryOver):
        text = "inputs: the state after the window would not be finite; the session stays as it is"
        context.fail(session, [work], Rejection(Reason.NON_FINITE_RESULT, text, field="inputs"))
    else:
        text = "the session's committed inputs did not give a finite state"
        context.fail(session, waiting_for(session, work), Rejection(Reason.INTERNAL_ERROR, text))


def _non_finite(step: Step, position: Position | None) -> Rejection:
    if step.computed < step.steps:
        field, text = "inputs", "the output or the state would not be finite; the session stays where it is"
    else:
        rolled = step.computed - step.steps
        field, text = "rollout_steps", f"the output or the state would not be finite at rolled time step {rolled}"
    return Rejection(Reason.NON_FINITE_RESULT, f"{field}: {text}", field=field, position=position)


def waiting_for(session: SessionState, work: Computable | None) -> list[Request]:
    """Returns the requests that the work is for; a log replay without duplicates is for the first of the queue."""
    if isinstance(work, LogReplay):
        return [*work.duplicates] or [*session.queue][:1]
    return [] if work is None else [work]
