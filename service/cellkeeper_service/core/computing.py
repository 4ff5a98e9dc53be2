"""What is computed for a request, and what it means for its session when that is done."""

from __future__ import annotations

from cellkeeper_service.domain.position import Position, advance, first_position
from cellkeeper_service.domain.record import Record
from cellkeeper_service.errors import Reason, Rejection

from .batch import Batch, prediction_after
from .carry_over import carried, target_retired
from .context import Context, no_reply
from .generation_requests import CarryOver, Policy
from .log_replay import Duplicate, LogReplay
from .requests import COMMITTING, READY, Computable, GetState, StateReply, Step
from .session import CachedState, Checkpoint, SessionState

NO_OUTPUTS: frozenset[str] = frozenset()


def start_chunk(context: Context, cached: CachedState, step: Step) -> None:
    step.begin(step.data, step.steps, step.wanted, (step.steps,) if step.wants_state else ())
    if cached.checkpoint is None and cached.checkpoint_due(step.steps, cached.max_log_steps):
        step.checkpoint_at = 0
    cached.start(step)


def start_peek(context: Context, cached: CachedState, step: Step) -> None:
    steps = step.all_steps
    step.begin(step.data, steps, step.wanted, (steps,) if step.wants_state else (), unfed=steps - step.steps)
    cached.start(step)


def start_read(context: Context, cached: CachedState, request: GetState | CarryOver) -> None:
    """The state as it is."""
    request.begin(b"", 0, NO_OUTPUTS, (0,))
    cached.start(request)


def start_rerun(context: Context, cached: CachedState, request: CarryOver) -> None:
    """cached: the initial state of the version that takes the session over."""
    request.begin(request.data, request.steps, NO_OUTPUTS, (request.steps,))
    cached.start(request)


def start_log_replay(context: Context, cached: CachedState, record: Record, duplicates: list[Step], acked: int) -> None:
    """Computes the record's log. `duplicates` lie within it: they get their outputs once more. Where a checkpoint is
    due, the state at step `acked` becomes its candidate."""
    start, end = record.header.checkpoint_step, record.position.step
    session = cached.session
    replay = LogReplay(session.key, float("inf"), no_reply, record, [])
    for step in duplicates:
        if (asked := step.asked_step) is not None:
            first = asked - start
            replay.duplicates.append(Duplicate(step, first, first + step.steps))
    names = NO_OUTPUTS.union(*(step.wanted for step in duplicates))
    ends = {one.last for one in replay.duplicates if one.step.wants_state}
    checkpoint_due = end - start >= cached.version.due_steps and start < acked <= end
    if checkpoint_due:
        ends.add(acked - start)
    replay.begin(record.log, end - start, names, sorted(ends))
    replay.checkpoint_at = acked - start if checkpoint_due else None
    for step in duplicates:
        step.status = READY
    cached.start(replay)


def end_dead(context: Context, cached: CachedState) -> bool:
    """Ends work that nobody waits for any more, and whose request has its result then. False: it has begun and goes on,
    as all but forecasts do: their steps are many, and nobody else has a use for them."""
    work = _work_of(cached)
    why = context.dead(work, context.now)
    if why is None or (work.computed > 0 and not work.unfed):
        return False
    session, cached.work = cached.session, None
    drop_uncommitted(context, session)
    context.finish(work, why)
    context.ready[session] = None
    return True


def drop_uncommitted(context: Context, session: SessionState) -> None:
    """Drops a state whose generation nobody has seen and whose creation did not come to a commit."""
    if session.cached is not None and not session.cached.exists and not session.has_uncommitted:
        context.drop(session)


def take_slice(context: Context, batch: Batch, row: int, cached: CachedState) -> None:
    """What follows from a row of a batch that gave a finite result for it."""
    work = cached.work
    if work is None:
        raise RuntimeError("a batch gave a result for a state on which nothing is computed")
    end = work.computed + batch.steps
    if isinstance(work, LogReplay):
        _share_out(work, batch, row, end)
    elif work.names and batch.computed is not None:
        piece = (batch.computed, row, 0, batch.steps)
        work.pieces = (*work.pieces, piece) if work.pieces else (piece,)
    if batch.states_before and row in batch.states_before:
        work.checkpoint_state = batch.states_before[row]
    if batch.states_after and row in batch.states_after:
        work.end_state = batch.states_after[row]
    work.computed = end
    if work.unfed and work.needs_prediction:
        _feed(cached, work, batch, row)
    if end < work.to_compute:
        work.status = READY
        cached.ready.append(cached)
        return
    cached.work = None
    if isinstance(work, Step) and not work.peek:
        finish_chunk(context, cached, work)
        context.go_on(cached.session)
    else:
        _finish(context, cached, work)
        context.ready[cached.session] = None  # also where nothing waits: its reading may be let go


def _share_out(replay: LogReplay, batch: Batch, row: int, end: int) -> None:
    """Gives each duplicate what is its own of a slice that ends at `end`."""
    after = batch.states_after.get(row)
    if after is not None and replay.checkpoint_at == end:
        replay.checkpoint_state = after
    for one in replay.duplicates:
        low, high = max(replay.computed, one.first), min(end, one.last)
        if low < high and batch.computed is not None:
            one.pieces.append((batch.computed, row, low - replay.computed, high - replay.computed))
        if one.last == end and one.step.wants_state:
            one.state = after


def _feed(cached: CachedState, work: Computable, batch: Batch, row: int) -> None:
    """The next time step's input is the prediction after the last one."""
    spec = cached.version.spec
    if spec.feedback is None or not isinstance(work, Step) or work.rollout is None:
        raise RuntimeError("a forecast is to be computed that cannot be")
    known = work.rollout.known[work.rollout.steps - work.unfed]
    following = spec.feedback.next_input(prediction_after(batch, row), known)
    work.inputs += following.astype(spec.input.numpy_dtype).tobytes()
    work.unfed -= 1


def _finish(context: Context, cached: CachedState, work: Computable) -> None:
    if isinstance(work, Step):
        _finish_peek(context, cached, work)
    elif isinstance(work, LogReplay):
        _finish_log_replay(context, cached, work)
    elif isinstance(work, GetState):
        context.finish(work, StateReply(cached.version, cached.frontier, work.end_state or b""))
    elif isinstance(work, CarryOver):
        _finish_carry_over(context, cached, work)


def finish_chunk(context: Context, cached: CachedState, step: Step) -> None:
    """A chunk is computed whole. Its reply waits for its commit."""
    before, at, version, session = cached.frontier, cached.step, cached.version, cached.session
    cached.frontier = step.after = advance(before, step.data, version.step_bytes)
    cached.step = at + step.steps
    cached.current ^= 1
    if step.checkpoint_state is not None:
        cached.checkpoint = Checkpoint(at, before.head, step.checkpoint_state, bytearray())
    if cached.checkpoint is not None:
        cached.checkpoint.tail += step.data
    step.computed_at, step.version = context.now, version
    step.created, cached.created = cached.created, False  # an earlier try may have set it
    context.caches[version].used(cached)
    step.status = COMMITTING
    session.pending.append(step)
    if session.in_flight is None:
        context.to_commit[session] = None


def _finish_peek(context: Context, cached: CachedState, step: Step) -> None:
    step.computed_at, step.version = context.now, cached.version
    step.after = advance(cached.frontier, step.inputs, cached.version.step_bytes)
    context.finish(step, None)


def _finish_log_replay(context: Context, cached: CachedState, replay: LogReplay) -> None:
    session, record = cached.session, replay.record
    context.meter.rebuilt(session.key.model, replay.to_compute)
    if (unpaid := _unpaid(context, replay)) > 0:
        context.owe(session.key.tenant, unpaid)
    cached.current = 1 - cached.current
    start = record.header.checkpoint_step
    if replay.checkpoint_state is not None and replay.checkpoint_at is not None:
        at = start + replay.checkpoint_at
        tail = bytearray(record.inputs(at, record.position.step))
        cached.checkpoint = Checkpoint(at, record.head_at(at), replay.checkpoint_state, tail)
    now = context.now
    for request in session.queue:
        if isinstance(request, Step) and session.is_read_for(request):
            request.load_seconds = now - max(session.load_started, request.arrived)
    for one in replay.duplicates:
        step, end = one.step, start + one.last
        step.started_at = step.computed_at = now
        step.load_seconds = now - max(session.load_started, step.arrived)
        step.version, step.replayed = cached.version, True
        step.after = Position(record.position.generation, end, record.head_at(end))
        step.pieces, step.end_state = one.pieces, one.state
        context.finish(step, None)


def _finish_carry_over(context: Context, cached: CachedState, request: CarryOver) -> None:
    """The state is there: another generation begins with it, once that is committed."""
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
    write = request.write = carried(record, request, target, at, state, context.clock.wall_ms())
    context.drop(session)
    context.commit_soon(session, request, write.reply)


def _unpaid(context: Context, replay: LogReplay) -> int:
    """Time steps of a log replay that nobody asked for and that its session's tenant caused: all those around
    duplicates, and of another replay what an acknowledging client would not have left in the log. To read the rest
    again is the server's own affair: it has forgotten the state."""
    if replay.duplicates:
        return replay.to_compute - sum(one.last - one.first for one in replay.duplicates)
    return replay.to_compute - context.limits.max_log_steps // 2


def not_finite(context: Context, cached: CachedState) -> None:
    """The row fails alone and keeps its last state. This rejection, too, is decided on the store's record, for the
    cached state may be stale."""
    work, session = _work_of(cached), cached.session
    model = session.key.model
    if isinstance(work, CarryOver):
        context.meter.non_finite(model)
        text = "inputs: the state after the window would not be finite; the session stays as it is"
        work_failed(context, cached, Rejection(Reason.NON_FINITE_RESULT, text, field="inputs"))
        return
    if not isinstance(work, Step):
        context.meter.non_finite(model)
        text = "the session's committed inputs did not give a finite state"
        work_failed(context, cached, Rejection(Reason.INTERNAL_ERROR, text))
        return
    cached.work = None
    if session.is_read_for(work) and not session.has_uncommitted:
        position = cached.frontier if cached.exists else None
        drop_uncommitted(context, session)
        context.meter.non_finite(model)
        context.finish(work, _non_finite(work, position))
    else:
        work.distrusts_hot = True
        context.requeue(session, [work])
    context.ready[session] = None


def _non_finite(step: Step, position: Position | None) -> Rejection:
    if step.computed < step.steps:
        text = "inputs: the output or the state would not be finite; the session stays where it is"
        return Rejection(Reason.NON_FINITE_RESULT, text, field="inputs", position=position)
    text = (
        f"rollout_steps: the output or the state would not be finite at rolled time step {step.computed - step.steps}"
    )
    return Rejection(Reason.NON_FINITE_RESULT, text, field="rollout_steps", position=position)


def work_failed(context: Context, cached: CachedState, why: Rejection) -> None:
    """The requests that it was for fail; the session goes on from the store's record."""
    session = cached.session
    failed = _work_of(cached).clients()
    if not failed and session.queue:
        failed = [session.queue[0]]  # the request that the log replay was for
    cached.work = None
    context.fail(session, failed, why)


def _work_of(cached: CachedState) -> Computable:
    if cached.work is None:
        raise RuntimeError("a batch gave a result for a state on which nothing is computed")
    return cached.work
