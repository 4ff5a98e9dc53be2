"""Decides, on the store's record, what Open, Reset, SetState, Fork and Delete do. Pure: returns what to write or to
answer."""

from __future__ import annotations

from dataclasses import dataclass

from cellkeeper_service.domain.origin import HALF_BYTES, origin_of
from cellkeeper_service.domain.position import Position, first_position
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import Commit, DamagedRecord
from cellkeeper_service.domain.store import Delete as StoreDelete
from cellkeeper_service.errors import Reason, Rejection

from .decision_table import generation_changed, not_found, refuse_misplaced, refuse_unserved
from .generation_requests import CarryOver, Delete, Deleted, Fork, Moved, Open, OpenReply, Reset, SetState
from .models import Models, Version
from .requests import Request, Write
from .sequence import ended, ttl_of_next

MakesGeneration = Open | Reset | SetState | CarryOver | Fork
"""The requests that make a generation."""


@dataclass(frozen=True, slots=True)
class NewGeneration:
    """What a new generation is made of, should the request make one."""

    generation: bytes
    now_ms: int
    default_ttl_ms: int


def open_session(
    record: Record | None, request: Open, models: Models, new: NewGeneration
) -> Write | OpenReply | Rejection:
    if record is None:
        if request.expect is not None:
            return not_found()
        ttl_ms = new.default_ttl_ms if request.ttl_ms is None else request.ttl_ms
        served = models.default
        state = request.initial_state if request.initial_state is not None else served.engine.initial_state
        header = new_header(served, first_position(new.generation), own_origin(request), ttl_ms, new.now_ms)
        commit = Commit(request.key, None, header, b"", state)
        return Write(commit, OpenReply(header, True), served)
    done = done_before(record.header, request)
    if isinstance(done, Rejection):
        return done
    if refused := refuse_unserved(record, models):
        return refused
    if request.expect is not None and (refused := refuse_misplaced(record, request.expect)):
        return refused
    created = done is not None
    if request.ttl_ms is None or request.ttl_ms == record.header.ttl_ms:
        return OpenReply(record.header, created)
    # The whole record is written: an append would leave something in the store that only a checkpoint drops, and a
    # session that is only opened makes none.
    header = record.header.replace(ttl_ms=request.ttl_ms, updated_ms=new.now_ms)
    whole = Commit(request.key, record.header, header, record.log, record.checkpoint)
    return Write(whole, OpenReply(header, created))


def start_over(
    standing: Header | None, request: Reset | SetState, models: Models, new: NewGeneration
) -> Write | Moved | Rejection:
    """Ends the generation that the request names and starts another, under the version that takes new sessions.
    standing: the record's header; nothing else of the record matters."""
    if standing is None:
        return not_found()
    if done := done_before(standing, request):
        return done
    if standing.position.generation != request.generation:
        return generation_changed(standing.position)
    served = models.default
    state, step = (served.engine.initial_state, 0) if isinstance(request, Reset) else (request.state, request.step)
    position = first_position(new.generation, step)
    ttl_ms = ttl_of_next(standing, new.default_ttl_ms)
    header = new_header(served, position, own_origin(request), ttl_ms, new.now_ms)
    return Write(Commit(request.key, standing, header, b"", state), Moved(position), served)


def source_of(record: Record | None, request: Fork) -> Record | Rejection:
    """Returns what the fork copies: the source's record up to the requested position."""
    if record is None:
        return not_found()
    asked = request.position
    if asked is None:
        return record
    if misplaced := refuse_misplaced(record, asked):
        return misplaced
    log = record.inputs(record.header.checkpoint_step, asked.step)
    return Record(record.header.replace(position=asked), record.checkpoint, log)


def copy_into(
    record: Record | None, request: Fork, source: Record | Rejection, new: NewGeneration
) -> Write | Moved | Rejection:
    """Returns the copy under a new generation. It keeps the source's heads, which name the consumed inputs. record: the
    target's."""
    if record is not None:
        if done := done_before(record.header, request):
            return done
        if isinstance(source, Record):
            text = f"target: session {request.key.session!r} exists already"
            return Rejection(Reason.SESSION_EXISTS, text, field="target")
    if isinstance(source, Rejection):
        return source
    position = Position(new.generation, source.position.step, source.position.head)
    header = source.header.replace(
        position=position,
        created_ms=new.now_ms,
        updated_ms=new.now_ms,
        ttl_ms=ttl_of_next(source.header, new.default_ttl_ms) if request.ttl_ms is None else request.ttl_ms,
        origin=own_origin(request),
    )
    return Write(Commit(request.key, None, header, source.log, source.checkpoint), Moved(position))


def delete(record: Record | None, request: Delete) -> Write | Deleted | Rejection:
    """Deletes the generation that the request names. Succeeds if that is gone already; after an unanswered try, that
    counts as this request's own work."""
    if record is not None and not request.generation:
        text = f"{request.where}: got 0 bytes, expected the session's 16: without them only a damaged one is deleted"
        return Rejection(Reason.INVALID_FIELD, text, field=request.where, position=record.position)
    if record is None or record.position.generation != request.generation:
        return Deleted(request.unknowns > 0)
    return Write(StoreDelete(request.key, request.generation), Deleted(True))


def done_before(standing: Header, request: MakesGeneration) -> Moved | Rejection | None:
    """Returns the session's position if the request made its generation, so that this is a retry; a rejection if
    another request with the same request_id did. standing: the record's header."""
    own = own_origin(request)
    if standing.origin in (own, ended(own), request.request_id):
        return Moved(standing.position)
    if standing.origin[:HALF_BYTES] != own[:HALF_BYTES]:
        return None
    return Rejection(
        Reason.INVALID_FIELD,
        "request_id: got that of another request, which began the session's generation; expected 16 random "
        "bytes for each request, the same at its retries only",
        field="request_id",
        position=standing.position,
    )


def own_origin(request: MakesGeneration) -> bytes:
    """Returns the origin of the generation that the request makes."""
    return origin_of(request.request_id, request.content)


def of_damaged(
    damage: DamagedRecord, request: Request, models: Models, new: NewGeneration
) -> Write | Deleted | Moved | Rejection:
    """Decides about a session whose record is damaged: it can be deleted and, if its header can be compared, reset.
    Everything else is refused."""
    header = damage.header
    position = None if header is None else header.position
    match request:
        case Delete() if header is not None and request.generation not in (b"", header.position.generation):
            return Deleted(request.unknowns > 0)
        case Delete() if header is not None or not request.generation:
            generation = b"" if header is None else header.position.generation
            return Write(StoreDelete(request.key, generation), Deleted(True))
        case Reset() if header is not None:
            return start_over(header, request, models, new)
    text = str(damage) if header is not None else f"{damage}; its header cannot be read: delete it without a generation"
    return Rejection(Reason.DATA_LOSS, text, position=position)


def new_header(served: Version, position: Position, origin: bytes, ttl_ms: int, now_ms: int) -> Header:
    """Returns the header of a generation's first record, whose checkpoint is at its start."""
    return Header(
        position=position,
        updated_ms=now_ms,
        checkpoint_step=position.step,
        checkpoint_head=position.head,
        created_ms=now_ms,
        ttl_ms=ttl_ms,
        fingerprint=served.spec.fingerprint,
        numerics=served.numerics,
        origin=origin,
        step_bytes=served.spec.step_bytes,
    )
