"""Decides, on the store's record, what a CarryOver does. Pure: returns what to write, to answer or to compute first."""

from __future__ import annotations

from cellkeeper_service.domain.position import Position, first_position
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.domain.store import Commit
from cellkeeper_service.errors import Reason, Rejection, invalid

from .decision_table import generation_changed, not_found, refuse_misplaced, refuse_unserved
from .generation_requests import CarryOver, Moved, Policy
from .lifecycle import NewGeneration, done_before, new_header, own_origin
from .models import Models, Version
from .requests import Write
from .sequence import ended, has_ended


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
    if refused := _refuse_lost(record, request.position):
        return refused
    if len(record.checkpoint) != target.spec.state_bytes or record.header.step_bytes != target.spec.step_bytes:
        return _refused(
            record,
            f"has a state of {len(record.checkpoint)} bytes and time steps of {record.header.step_bytes}, the other "
            f"{target.spec.state_bytes} and {target.spec.step_bytes}: this state does not go into that model",
        )
    source = models.find(record.header.fingerprint)
    if source is not None and _of_other_cells(source.spec, target.spec):
        return _refused(
            record,
            f"has cells of the kind {source.spec.cell}, the other {target.spec.cell}: to these, the state means "
            "something else",
        )
    if not record.log:
        return carried(
            record, request, target, first_position(new.generation, record.position.step), record.checkpoint, new.now_ms
        )
    if source is None:
        logged = record.position.step - record.header.checkpoint_step
        return _refused(
            record,
            f"is not served, and the state after the last {logged} time steps can be computed by it alone: serve both "
            "versions",
        )
    return refuse_unserved(record, models) or record


def _of_other_cells(one: ModelSpec, other: ModelSpec) -> bool:
    """Returns True if a state of the one certainly means something else to the other, although it has the same size.

    A graph does not say what kind of cells it has.
    """
    return "" not in (one.cell, other.cell) and one.cell != other.cell


def _refuse_lost(record: Record, known: Position | None) -> Rejection | None:
    """Refuses to keep the state of a record that has lost steps which the caller knows of: nobody would notice. Steps
    that the caller does not know of do no harm."""
    if known is None or known.step < record.header.checkpoint_step:
        return None
    return refuse_misplaced(record, known)


def carried(record: Record, request: CarryOver, target: Version, at: Position, state: bytes, now_ms: int) -> Write:
    """Returns the new generation: this state at `at`, an empty log. A sequence that has ended stays ended."""
    origin = own_origin(request)
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
