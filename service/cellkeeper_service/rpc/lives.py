"""Open, Reset, SetState, Fork, Delete: protobuf to requests and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.errors import Rejection, invalid
from cellkeeper_service.sessions.requests import (
    Delete,
    Deleted,
    Done,
    Fork,
    Moved,
    Open,
    OpenReply,
    Request,
    Reset,
    SetState,
)

from . import fields, tensors
from .catalog import Catalog
from .status import to_error, to_position

Maker = Callable[[Done], Request] | Rejection
MAX_TTL_MS = 10 * 366 * 24 * 3600 * 1000  # ten years
MAX_START_STEP = fields.MAX_STEP // 2  # so that the steps after it stay countable


def read_open(request: pb.OpenRequest, catalog: Catalog, deadline: float) -> Callable[[Done], Request]:
    name, _ = catalog.find(request.model)
    key = catalog.key(name, request.session)
    origin = fields.request_id(request.request_id)
    expect = fields.position(request.expect, "expect") if request.HasField("expect") else None
    ttl_ms = request.ttl_ms if request.HasField("ttl_ms") else None
    longest_ms = catalog.limits.max_ttl_ms
    if ttl_ms is not None and longest_ms and not 0 < ttl_ms <= longest_ms:
        raise invalid("ttl_ms", ttl_ms, f"1 to {longest_ms}, which is the longest at this server")
    if ttl_ms is not None and ttl_ms > MAX_TTL_MS:
        raise invalid("ttl_ms", ttl_ms, f"at most {MAX_TTL_MS}, or 0 for never")
    spec = catalog.spec(name)
    state = tensors.read_state(request.initial_state, spec, "initial_state") if request.initial_state else None
    return lambda done: Open(key, deadline, done, origin, expect, ttl_ms, state)


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
        origin = fields.request_id(item.request_id, f"{where}.request_id")
        return lambda done: Reset(key, deadline, done, generation, origin)

    return _each(request.items, read, catalog, _session)


def read_set_states(request: pb.SetStateRequest, catalog: Catalog, deadline: float) -> list[Maker]:
    name, _ = catalog.find(request.model)
    spec = catalog.spec(name)

    def read(item: pb.SetStateRequest.Item, where: str) -> Callable[[Done], Request]:
        key = catalog.key(name, item.session, f"{where}.session")
        generation = fields.generation_bytes(item.generation, f"{where}.generation")
        origin = fields.request_id(item.request_id, f"{where}.request_id")
        if item.step >= MAX_START_STEP:
            raise invalid(f"{where}.step", item.step, f"less than {MAX_START_STEP}")
        step, state = item.step, tensors.read_state(item.state, spec, f"{where}.state")
        return lambda done: SetState(key, deadline, done, generation, origin, step, state)

    return _each(request.items, read, catalog, _session)


def read_forks(request: pb.ForkRequest, catalog: Catalog, deadline: float) -> list[Maker]:
    name, _ = catalog.find(request.model)

    def read(item: pb.ForkRequest.Item, where: str) -> Callable[[Done], Request]:
        source = catalog.key(name, item.source, f"{where}.source")
        target = catalog.key(name, item.target, f"{where}.target")
        if source == target:
            raise invalid(f"{where}.target", repr(item.target), "another session than the source")
        at = fields.position(item.position, f"{where}.position") if item.HasField("position") else None
        origin = fields.request_id(item.request_id, f"{where}.request_id")
        return lambda done: Fork(source, deadline, done, target, at, origin)

    return _each(request.items, read, catalog, _target)


def read_deletes(request: pb.DeleteRequest, catalog: Catalog, deadline: float) -> list[Maker]:
    name, _ = catalog.find(request.model)

    def read(item: pb.DeleteRequest.Item, where: str) -> Callable[[Done], Request]:
        key = catalog.key(name, item.session, f"{where}.session")
        generation = fields.generation_bytes(item.generation, f"{where}.generation")
        return lambda done: Delete(key, deadline, done, generation)

    return _each(request.items, read, catalog, _session)


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
    changed: Callable[[Any], str],
) -> list[Maker]:
    """One maker for each item, or why it is refused. changed: the session that an item changes."""
    count, limit = len(items), catalog.limits.max_frame_items
    if not 1 <= count <= limit:
        raise invalid("items", f"{count} items", f"1 to {limit}")
    makers: list[Maker] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        try:
            key = changed(item)
            if key in seen:
                raise fields.duplicate(key, f"items[{index}]")
            seen.add(key)
            makers.append(read(item, f"items[{index}]"))
        except Rejection as rejection:  # noqa: PERF203 - each item fails on its own
            makers.append(rejection)
    return makers


def _session(item: Any) -> str:
    return str(item.session)


def _target(item: Any) -> str:
    return str(item.target)
