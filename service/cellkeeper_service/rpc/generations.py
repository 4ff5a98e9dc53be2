"""Converts Open, OpenMany, Reset, SetState, CarryOver, Fork and Delete between protobuf and core requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.core.generation_requests import (
    CarryOver,
    Delete,
    Deleted,
    Fork,
    Moved,
    Open,
    OpenReply,
    Policy,
    Reset,
    SetState,
)
from cellkeeper_service.core.requests import Done, Request
from cellkeeper_service.domain.clock import LONGEST_TTL_MS
from cellkeeper_service.domain.origin import content_of
from cellkeeper_service.domain.position import MAX_STEP
from cellkeeper_service.errors import Rejection, invalid

from . import chunk_inputs, fields, tensors
from .catalog import Catalog
from .status import to_error, to_position
from .waiting import Maker

POLICIES = {
    pb.CarryOverRequest.KEEP: Policy.KEEP,
    pb.CarryOverRequest.RERUN: Policy.RERUN,
    pb.CarryOverRequest.RESET: Policy.RESET,
}
PLAIN_OPEN = content_of("Open", b"")  # the content hash of an Open without an initial state
OpenFields = pb.OpenRequest | pb.OpenManyRequest.Item
"""Both have the fields that describe how to open one session."""
MAX_START_STEP = (MAX_STEP + 1) // 2  # leaves room for the steps that follow


def read_opens(
    model: str, items: Sequence[OpenFields], catalog: Catalog, deadline: float, *, alone: bool = False
) -> list[Maker]:
    """Returns one maker, or a Rejection, for each item.

    alone: the single item is the whole request, so errors name its fields without `items[0]`.
    """
    name, _ = catalog.find(model)
    spec = catalog.spec(name)

    def read(item: OpenFields, where: str) -> Callable[[Done], Request]:
        place = "" if alone else f"{where}."
        key = catalog.key(name, item.session, f"{place}session")
        request_id = fields.request_id(item.request_id, f"{place}request_id")
        expect = fields.position(item.expect, f"{place}expect") if item.HasField("expect") else None
        ttl_ms = _ttl_ms(item.ttl_ms, f"{place}ttl_ms", catalog) if item.HasField("ttl_ms") else None
        if not item.initial_state:
            return lambda done: Open(key, deadline, done, request_id, expect, ttl_ms, None, PLAIN_OPEN)
        state = tensors.read_state(item.initial_state, spec, f"{place}initial_state")
        # ttl_ms and expect are left out: they are checked whichever request made the session
        content = content_of("Open", b"state" + state)
        return lambda done: Open(key, deadline, done, request_id, expect, ttl_ms, state, content)

    return _each(items, read, catalog)


def _ttl_ms(ttl_ms: int, field: str, catalog: Catalog) -> int:
    longest_ms = catalog.limits.max_ttl_ms
    if longest_ms and not 0 < ttl_ms <= longest_ms:
        raise invalid(field, ttl_ms, f"1 to {longest_ms}, the maximum on this server")
    if ttl_ms > LONGEST_TTL_MS:
        raise invalid(field, ttl_ms, f"at most {LONGEST_TTL_MS}, or 0 for never")
    return ttl_ms


def write_opens(results: Sequence[OpenReply | Rejection]) -> pb.OpenManyResponse:
    return pb.OpenManyResponse(
        results=[
            pb.OpenManyResponse.Result(error=to_error(result))
            if isinstance(result, Rejection)
            else pb.OpenManyResponse.Result(opened=write_open(result))
            for result in results
        ]
    )


def write_open(reply: OpenReply) -> pb.OpenResponse:
    header = reply.header
    return pb.OpenResponse(
        position=to_position(header.position),
        created=reply.created,
        fingerprint=header.fingerprint,
        ttl_ms=header.ttl_ms,
    )


def read_resets(request: pb.ResetRequest, catalog: Catalog, deadline: float) -> list[Maker]:
    name, _ = catalog.find(request.model)

    def read(item: pb.ResetRequest.Item, where: str) -> Callable[[Done], Request]:
        key = catalog.key(name, item.session, f"{where}.session")
        generation = fields.generation_bytes(item.generation, f"{where}.generation")
        request_id = fields.request_id(item.request_id, f"{where}.request_id")
        content = content_of("Reset", generation)
        return lambda done: Reset(key, deadline, done, generation, request_id, content)

    return _each(request.items, read, catalog)


def read_set_states(request: pb.SetStateRequest, catalog: Catalog, deadline: float) -> list[Maker]:
    name, _ = catalog.find(request.model)
    spec = catalog.spec(name)

    def read(item: pb.SetStateRequest.Item, where: str) -> Callable[[Done], Request]:
        key = catalog.key(name, item.session, f"{where}.session")
        generation = fields.generation_bytes(item.generation, f"{where}.generation")
        request_id = fields.request_id(item.request_id, f"{where}.request_id")
        if item.step >= MAX_START_STEP:
            raise invalid(f"{where}.step", item.step, f"less than {MAX_START_STEP}")
        step, state = item.step, tensors.read_state(item.state, spec, f"{where}.state")
        content = content_of("SetState", generation, step.to_bytes(8, "little"), state)
        return lambda done: SetState(key, deadline, done, generation, request_id, step, state, content)

    return _each(request.items, read, catalog)


def read_carry_overs(request: pb.CarryOverRequest, catalog: Catalog, deadline: float) -> list[Maker]:
    name, _ = catalog.find(request.model)
    spec = catalog.version(name, request.fingerprint).spec

    def read(item: pb.CarryOverRequest.Item, where: str) -> Callable[[Done], Request]:
        key = catalog.key(name, item.session, f"{where}.session")
        generation = fields.generation_bytes(item.generation, f"{where}.generation")
        request_id = fields.request_id(item.request_id, f"{where}.request_id")
        policy = POLICIES.get(item.policy)
        if policy is None:
            raise invalid(f"{where}.policy", item.policy, "KEEP, RERUN or RESET")
        if policy is Policy.RERUN:
            steps = chunk_inputs.time_steps(item, spec, catalog, f"{where}.")
            window = chunk_inputs.read_chunk(item, steps, spec, f"{where}.")
        else:
            window, steps = b"", 0
            if item.dtype or item.shape or item.inputs or item.named_inputs:
                raise invalid(f"{where}.inputs", f"a window with {policy.name}", "none: only RERUN takes a window")
        at = fields.position(item.position, f"{where}.position") if item.HasField("position") else None
        if at is not None and policy is not Policy.KEEP:
            raise invalid(f"{where}.position", f"one with {policy.name}", "none: only KEEP takes a position")
        if at is not None and at.generation != generation:
            raise invalid(f"{where}.position.generation", at.generation.hex(), f"the item's, {generation.hex()}")
        target = spec.fingerprint
        asked = request.fingerprint  # as sent: if empty, the version that it resolves to changes with a reload
        # without the position, as a Fork's is without its TTL
        content = content_of("CarryOver", generation, asked, policy.value.encode(), window)
        return lambda done: CarryOver(
            key, deadline, done, generation, request_id, target, policy, window, steps, content, at
        )

    return _each(request.items, read, catalog)


def read_forks(request: pb.ForkRequest, catalog: Catalog, deadline: float) -> list[Maker]:
    name, _ = catalog.find(request.model)

    def read(item: pb.ForkRequest.Item, where: str) -> Callable[[Done], Request]:
        source = catalog.key(name, item.source, f"{where}.source")
        target = catalog.key(name, item.target, f"{where}.target")
        if source == target:
            raise invalid(f"{where}.target", repr(item.target), "a session other than the source")
        at = fields.position(item.position, f"{where}.position") if item.HasField("position") else None
        request_id = fields.request_id(item.request_id, f"{where}.request_id")
        ttl_ms = _ttl_ms(item.ttl_ms, f"{where}.ttl_ms", catalog) if item.HasField("ttl_ms") else None
        # without the TTL, as in Open: a retry may reach a server of a release that does not know it
        content = content_of("Fork", item.source.encode(), b"" if at is None else at)
        return lambda done: Fork(source, deadline, done, target, at, request_id, content, ttl_ms)

    return _each(request.items, read, catalog, changed="target")


def read_deletes(request: pb.DeleteRequest, catalog: Catalog, deadline: float) -> list[Maker]:
    name, _ = catalog.find(request.model)

    def read(item: pb.DeleteRequest.Item, where: str) -> Callable[[Done], Request]:
        key = catalog.key(name, item.session, f"{where}.session")
        field = f"{where}.generation"
        generation = fields.generation_bytes(item.generation, field) if item.generation else b""
        return lambda done: Delete(key, deadline, done, generation, field)

    return _each(request.items, read, catalog)


def write_results(results: Sequence[Any]) -> pb.SessionResults:
    return pb.SessionResults(results=[_result(result) for result in results])


def _result(result: Any) -> pb.SessionResult:
    match result:
        case Rejection():
            return pb.SessionResult(error=to_error(result))
        case Moved():
            return pb.SessionResult(position=to_position(result.position))
        case Deleted():
            return pb.SessionResult(deleted=result.deleted)
        case _:
            raise TypeError(f"no result message for {type(result).__name__}")


def _each(
    items: Sequence[Any],
    read: Callable[[Any, str], Callable[[Done], Request]],
    catalog: Catalog,
    changed: str = "session",
) -> list[Maker]:
    """Returns one maker, or a Rejection, for each item. changed: the field with the session that an item changes."""
    count, limit = len(items), catalog.limits.max_frame_items
    if not 1 <= count <= limit:
        raise invalid("items", f"{count} items", f"1 to {limit}")
    makers: list[Maker] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        try:
            session = getattr(item, changed)
            if session in seen:
                raise fields.duplicate(session, f"items[{index}]")
            seen.add(session)
            makers.append(read(item, f"items[{index}]"))
        except Rejection as rejection:  # noqa: PERF203 - each item fails on its own
            makers.append(rejection)
    return makers
