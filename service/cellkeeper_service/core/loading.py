"""Reading records: which to read next, and what a reading means for its session."""

from __future__ import annotations

from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import DamagedRecord, StoreError

from .commit import store_unavailable
from .context import Context
from .limits import MAX_CALL_ITEMS
from .session import Reading, SessionState


def next_loads(context: Context) -> list[SessionState]:
    """Returns the sessions whose records the next call reads: many, or one that is read alone; in turn if both wait."""
    if context.to_load_alone and (context.alone_next or not context.to_load):
        wanted = [context.to_load_alone.popleft()]
    else:
        wanted, context.to_load = context.to_load[:MAX_CALL_ITEMS], context.to_load[MAX_CALL_ITEMS:]
    context.alone_next = not context.alone_next
    sessions = []
    for session in wanted:
        if session.queue:
            session.load_number = context.admission.arrivals
            sessions.append(session)
        else:  # nobody waits for its record any more
            session.loading = False
            context.settle(session)
    return sessions


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
