"""Decides, on the store's record, what Open, Reset, SetState, CarryOver, Fork and Delete do. Pure: returns what to
write, to answer, or to compute first."""

from __future__ import annotations

from dataclasses import dataclass

from cellkeeper_service.domain.origin import HALF_BYTES, origin_of
from cellkeeper_service.domain.position import Position, first_position
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import Commit, DamagedRecord
from cellkeeper_service.domain.store import Delete as StoreDelete
from cellkeeper_service.errors import Reason, Rejection, invalid

from .decision_table import generation_changed, not_found, refuse_misplaced, refuse_unserved
from .generation_requests import CarryOver, Delete, Deleted, Fork, Moved, Open, OpenReply, Policy, Reset, SetState
from .models import Models, Version
from .requests import Request, Write
from .sequence import ended, has_ended, ttl_of_next

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
        header = new_header(served, first_position(new.generation), _origin(request), ttl_ms, new.now_ms)
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
    header = new_header(served, position, _origin(request), ttl_ms, new.now_ms)
    return Write(Commit(request.key, standing, header, b"", state), Moved(position), served)


def carry_over(
    record: Record | None, request: CarryOver, models: Models, new: NewGeneration
) -> Write | Moved | Rejection | Record | Version:
    """Returns what to write or to answer, or what to compute first: the record's state by its own version (the record),
    or a window by the new one. A session of the new version stays as it is, so carrying many over can be repeated."""
    if record is None:
        return not_found()
    if done := done_before(record.header, request):
        return done
    if record.position.generation != request.generation:
        return generation_changed(record.position)
    target = models.find(request.target)
    if target is None:
        return target_retired(request, models)
    if record.header.fingerprint == target.spec.fingerprint:
        return Moved(record.position)
    match request.policy:
        case Policy.RESET:
            start = first_position(new.generation)
            return carried(record, request, target, start, target.engine.initial_state, new.now_ms)
        case Policy.RERUN:
            return target
        case Policy.KEEP:
            return _keep(record, request, models, target, new)


def _keep(
    record: Record, request: CarryOver, models: Models, target: Version, new: NewGeneration
) -> Write | Rejection | Record:
    if len(record.checkpoint) != target.spec.state_bytes or record.header.step_bytes != target.spec.step_bytes:
        return _refused(
            record,
            f"has a state of {len(record.checkpoint)} bytes and time steps of {record.header.step_bytes}, the other "
            f"{target.spec.state_bytes} and {target.spec.step_bytes}: this state does not go into that model",
        )
    if not record.log:
        return carried(
            record, request, target, first_position(new.generation, record.position.step), record.checkpoint, new.now_ms
        )
    if models.find(record.header.fingerprint) is None:
        logged = record.position.step - record.header.checkpoint_step
        return _refused(
            record,
            f"is not served, and the state after the last {logged} time steps can be computed by it alone: serve both "
            "versions",
        )
    return refuse_unserved(record, models) or record


def carried(record: Record, request: CarryOver, target: Version, at: Position, state: bytes, now_ms: int) -> Write:
    """Returns the new generation: this state at `at`, an empty log. A sequence that has ended stays ended."""
    origin = _origin(request)
    if has_ended(record.header.origin):
        origin = ended(origin)
    header = new_header(target, at, origin, record.header.ttl_ms, now_ms)
    return Write(Commit(request.key, record.header, header, b"", state), Moved(at), target)


def target_retired(request: CarryOver, models: Models) -> Rejection:
    """The version to carry over to was served when the request arrived, but no longer is."""
    known = ", ".join(version.spec.fingerprint.hex()[:12] for version in models)
    return invalid("fingerprint", request.target.hex()[:12], f"one of {known}")


def _refused(record: Record, why: str) -> Rejection:
    text = f"policy KEEP: the session's version {record.header.fingerprint.hex()[:12]} {why}; or use RERUN or RESET"
    return Rejection(Reason.MODEL_CHANGED, text, field="policy", position=record.position)


def source_of(record: Record | None, request: Fork) -> Record | Rejection:
    """Returns what the fork copies: the source's record up to the requested position."""
    if record is None:
        return not_found("source")
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
        ttl_ms=ttl_of_next(source.header, new.default_ttl_ms),
        origin=_origin(request),
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
    own = _origin(request)
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


def _origin(request: MakesGeneration) -> bytes:
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
