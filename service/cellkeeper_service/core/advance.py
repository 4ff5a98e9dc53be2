"""A session's state machine: advances its first request until something must be read, computed or committed for it.

Requests are decided on a record that was read after they arrived. Only a chunk exactly at the cached state's position
needs no record: if the cached state is stale, the compare-and-set of the chunk's commit fails.
"""

from __future__ import annotations

import logging
from typing import Any

from cellkeeper_service.domain.position import MAX_STEP, first_position
from cellkeeper_service.domain.record import NO_ORIGIN, Header, Record
from cellkeeper_service.domain.store import DamagedRecord, StoreError
from cellkeeper_service.errors import Reason, Rejection

from . import lifecycle
from .carry_over import carry_over
from .commit import store_unavailable
from .computing import start_chunk, start_log_replay
from .context import Context
from .decision_table import Verdict, decide, not_found, refuse_unserved
from .generation_requests import CarryOver, Delete, Fork, Open, Reset, SetState
from .lifecycle import new_header
from .models import Version
from .requests import LOADING, GetSession, GetState, Request, SessionReply, Step, Write
from .sequence import has_ended
from .session import CachedState, Checkpoint, Reading, SessionState

log = logging.getLogger(__name__)

Found = Record | DamagedRecord | None
"""What the store holds of a session."""


def advance(context: Context, session: SessionState) -> None:
    """Starts whatever the session's first request needs next; finishes those that need nothing more."""
    while session.may_advance:
        request = session.queue[0]
        try:
            if not _go_on(context, session, request):
                break
        except Exception:
            log.exception("internal error: a session's request failed")
            context.broken(session, [request])
    context.settle(session)


def loaded(context: Context, session: SessionState, result: Record | StoreError | None) -> None:
    """The store has read the session's record, or has failed to."""
    if isinstance(result, StoreError) and not isinstance(result, DamagedRecord):
        while session.queue and session.queue[0].number <= session.load_number:
            context.finish(session.queue.popleft(), store_unavailable(str(result), context.limits))
        return
    session.reading = Reading(session.load_number, result)
    cached = session.cached
    if cached is not None and not (isinstance(result, Record) and cached.frontier == result.position):
        context.drop(session)
        context.meter.evicted(session.key.model, "stale")
    context.meter.loaded(session.key.model, session.cached is not None)
    session.note_load_seconds(session.queue, context.now)


def _go_on(context: Context, session: SessionState, request: Request) -> bool:
    """Returns False if the request waits for the session's own commits."""
    if (why := context.dead(request)) is not None:
        session.queue.popleft()
        context.finish(request, why)
    elif isinstance(request, Step) and (cached := continues(session, request)) is not None:
        session.queue.popleft()
        start_chunk(cached, request)
    elif session.has_uncommitted:
        return False
    elif session.reading is None or not session.is_read_for(request):
        session.loading, session.load_started = True, context.now
        context.to_load.append(session)
        request.status = LOADING
    else:
        _decide(context, session, request, session.reading.found)
    return True


def continues(session: SessionState, step: Step) -> CachedState | None:
    """Returns the cached state if the chunk is at its position, which is the ordinary case."""
    cached = session.cached
    if cached is None or step.peek or step.distrusts_hot or cached.version.retired:
        return None
    if step.position is not None and step.position != cached.frontier:
        return None
    if step.sequence is not None and not (step.sequence.continues_at(cached.step) and _is_open(session, cached)):
        return None
    end = cached.step + step.steps
    if end > MAX_STEP:
        return None
    fits = end - cached.log_start <= cached.max_log_steps  # even if no reply is acknowledged
    return cached if fits or cached.log_fits(step) else None


def _is_open(session: SessionState, cached: CachedState) -> bool:
    """Returns whether the sequence goes on: no chunk that was computed or committed has ended it."""
    uncommitted = [*session.pending, *([] if session.in_flight is None else session.in_flight.requests)]
    # all of them: the last may be a step with a position, which knows nothing of an end
    ends = any(isinstance(one, Step) and one.sequence is not None and one.sequence.ends for one in uncommitted)
    return not ends and not has_ended(cached.header.origin)


def start_at_once(context: Context, session: SessionState, step: Request) -> bool:
    """Starts a new chunk that continues the cached state of a session without waiting requests. It does not wait for
    the next tick, where `advance` would do the same. Returns False if nothing was done."""
    cached = session.cached
    if cached is None or cached.work is not None or session.queue or session.loading or not isinstance(step, Step):
        return False
    try:
        if continues(session, step) is None:
            return False
        start_chunk(cached, step)
    except Exception:
        log.exception("internal error: a session's request failed")
        context.broken(session, [step])
    return True


def _decide(context: Context, session: SessionState, request: Request, found: Found) -> None:
    models = context.models[session.key.model]
    decided: Any
    match request:
        case Step() if not isinstance(found, DamagedRecord) or _replaces(request, found):
            _decide_step(context, session, request, found)
            return
        case _ if isinstance(found, DamagedRecord):
            decided = lifecycle.of_damaged(found, request, models, context.new_generation())
        case GetState():
            decided = not_found() if found is None else refuse_unserved(found, models) or found
        case GetSession():
            decided = not_found() if found is None else SessionReply(found, session.cached is not None)
        case Open():
            decided = lifecycle.open_session(found, request, models, context.new_generation())
        case Reset() | SetState():
            standing = None if found is None else found.header
            decided = lifecycle.start_over(standing, request, models, context.new_generation())
        case CarryOver():
            decided = carry_over(found, request, models, context.new_generation())
        case Delete():
            decided = lifecycle.delete(found, request)
        case Fork(source=None):
            decided = lifecycle.source_of(found, request)
        case Fork(source=Record() | Rejection() as source):
            decided = lifecycle.copy_into(found, request, source, context.new_generation())
        case _:
            raise TypeError(f"no decision for {type(request).__name__}")
    if isinstance(request, Fork) and request.source is None:
        session.queue.popleft()
        request.source = decided
        context.goes_on_at(request, request.target)
    elif isinstance(request, (GetState, CarryOver)) and isinstance(decided, Record):
        if cached := _cached_at(context, session, decided, decided.position.step):
            session.queue.popleft()
            cached.start(request, b"", 0, ends=(0,))
    elif isinstance(request, CarryOver) and isinstance(decided, Version):
        if cached := _create(context, session, decided):
            session.queue.popleft()
            cached.start(request, request.data, request.steps, ends=(request.steps,))
    else:
        _conclude(context, session, request, decided)


def _replaces(step: Step, damage: DamagedRecord) -> bool:
    """Returns whether the step needs only the damaged record's header, which its commit compares. The start that made
    this record does not make another: the steps applied after it are lost, and their sender must be told."""
    return step.sequence is not None and damage.header is not None and step.sequence.starts_over(damage.header)


def _decide_step(context: Context, session: SessionState, step: Step, found: Found) -> None:
    """found: a damaged record only if the step replaces it."""
    models = context.models[session.key.model]
    record = found if isinstance(found, Record) else None
    verdict = decide(record, step, models)
    if isinstance(verdict, Rejection):
        _conclude(context, session, step, verdict)
    elif verdict is Verdict.CREATE or record is None:
        origin = NO_ORIGIN if step.sequence is None else step.sequence.origin
        created = _create(context, session, models.default, origin, None if found is None else found.header)
        if created is not None:
            session.queue.popleft()
            _lead(session, step, created.header.position.generation)
            start_chunk(created, step)
    elif verdict is Verdict.REPLAY:
        _lead(session, step, record.position.generation)
        _replay(context, session, record)
    elif cached := _cached_at(context, session, record, step.acked_at(record.position.step)):
        if step.peek:
            session.queue.popleft()
            ends = (step.all_steps,) if step.wants_state else ()
            cached.start(step, step.data, step.all_steps, step.wanted, ends, step.all_steps - step.steps)
        elif cached.make_room(step):
            session.queue.popleft()
            start_chunk(cached, step)
        else:
            _conclude(context, session, step, _ack_behind(context, record))


def _lead(session: SessionState, start: Step, generation: bytes) -> None:
    """Chunks that an unanswered commit carried after a start belong to the start's generation, which is `generation`
    now. A step that is not in doubt changes nothing."""
    if start.in_doubt:
        for request in session.queue:
            if isinstance(request, Step) and request.in_doubt:
                request.in_doubt += (generation,)


def _cached_at(context: Context, session: SessionState, record: Record, acked: int) -> CachedState | None:
    """Returns the state at the record's position; None: the session waits for a slot, or for a log replay."""
    cached = session.cached
    # a retired version's fingerprint may be served again, by another one
    if cached is not None and cached.frontier == record.position and not cached.version.retired:
        cached.stands_at(record.header)
        return cached
    cached = _place_record(context, session, record)
    if cached is not None and record.log:
        start_log_replay(cached, record, [], acked)
        return None
    return cached


def _replay(context: Context, session: SessionState, record: Record) -> None:
    """Starts one log replay for the first request and the duplicates right after it."""
    cached = _place_record(context, session, record)
    if cached is None:
        return
    models = context.models[session.key.model]
    duplicates: list[Step] = []
    for step in session.queue:
        if not isinstance(step, Step) or not session.is_read_for(step):
            break
        if decide(record, step, models) is not Verdict.REPLAY:
            break
        duplicates.append(step)
    start_log_replay(cached, record, duplicates, record.position.step)
    for _ in duplicates:
        session.queue.popleft()


def _place_record(context: Context, session: SessionState, record: Record) -> CachedState | None:
    context.drop(session)
    version = context.models[session.key.model].find(record.header.fingerprint)
    if version is None:
        raise LookupError("a record was decided to be served whose model version is not")
    return context.place_or_wait(session, version, record.header, record.checkpoint)


def _create(
    context: Context, session: SessionState, version: Version, origin: bytes = NO_ORIGIN, replaces: Header | None = None
) -> CachedState | None:
    """Caches a new generation, whose first commit writes its checkpoint. replaces: the stored header, if any."""
    context.drop(session)
    new = context.new_generation()
    start, state = first_position(new.generation), version.engine.initial_state
    header = new_header(version, start, origin, new.default_ttl_ms, new.now_ms)
    cached = context.place_or_wait(session, version, header, state)
    if cached is not None:
        cached.exists, cached.replaces = False, replaces
        cached.checkpoint = Checkpoint(start.step, start.head, state, bytearray())
    return cached


def _conclude(context: Context, session: SessionState, request: Request, decided: Any) -> None:
    """Finishes the session's first request, after a commit if the decision writes anything."""
    session.queue.popleft()
    if isinstance(decided, Write):
        context.drop(session)
        context.commit_soon(session, request, decided)
    else:
        context.finish(request, decided)


def _ack_behind(context: Context, record: Record) -> Rejection:
    logged = record.position.step - record.header.checkpoint_step
    most = context.limits.log_steps(record.header.step_bytes)
    text = (
        f"acked: the log holds {logged} steps of at most {most}, and the replies to "
        "them are not acknowledged; expected an `acked` nearer to the position"
    )
    return Rejection(Reason.ACK_BEHIND, text, field="acked", position=record.position)
