"""Converts the service's messages to JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.rpc import code_pb2

from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Header
from cellkeeper_service.errors import Rejection
from cellkeeper_service.rpc.fields import STATE_PREFIX
from cellkeeper_service.rpc.status import to_error
from cellkeeper_service.rpc.tensors import DTYPES, WIRE_DTYPES

from .arrays import write_array
from .field_names import COMMON, FieldNames
from .fields import UnknownField
from .json_text import integer

NAMES = {wire: name for name, wire in WIRE_DTYPES.items()}
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""By the name of the gRPC code, as specified in google.rpc.Code."""


def error(message: pb.Error, names: FieldNames | None = COMMON) -> dict[str, Any]:
    """Returns the value of "error". details: the field at fault, the record's position, and when to retry.

    names: of the fields in the request; None: the message has its names already.
    """
    field, text = message.field if names is None else names.name(message.field), message.message
    if text.startswith(message.field):
        text = field + text[len(message.field) :]
    details: dict[str, Any] = {}
    if field:
        details["field"] = field
    if message.HasField("position"):
        details["position"] = position(message.position)
    if message.retry_delay_ms:
        details["retry_delay_ms"] = message.retry_delay_ms
    return {
        "code": code_pb2.Code.Name(message.code),
        "reason": pb.Reason.Name(message.reason),
        "message": text,
        "details": details,
    }


def rejection(why: Rejection, names: FieldNames = COMMON) -> dict[str, Any]:
    return error(to_error(why), None if isinstance(why, UnknownField) else names)


def position(message: pb.Position | Position) -> dict[str, Any]:
    return {"generation": message.generation.hex(), "step": integer(message.step), "head": message.head.hex()}


def states(tensors: Iterable[pb.Tensor | pb.OutputColumn], prefix: str = "") -> dict[str, Any]:
    return {
        item.name.removeprefix(prefix): {
            "dtype": NAMES[item.dtype],
            "shape": list(item.shape),
            "data": _values(item, item.shape),
        }
        for item in tensors
    }


def step(reply: pb.StepResponse) -> dict[str, Any]:
    outputs = [(item, item.shape) for item in reply.outputs]
    return applied(reply, outputs, reply.position, replayed=reply.replayed, created=reply.created)


def applied(
    reply: pb.StepResponse | pb.StepFrameReply,
    outputs: Sequence[tuple[pb.Tensor | pb.OutputColumn, Sequence[int]]],
    at: pb.Position | Position,
    *,
    replayed: bool,
    created: bool,
) -> dict[str, Any]:
    """Describes a chunk's results. Its outputs are by name, [T, ...]; its states, if requested, are apart.

    outputs: each with its shape.
    """
    written: dict[str, Any] = {
        "outputs": {
            item.name: _values(item, shape) for item, shape in outputs if not item.name.startswith(STATE_PREFIX)
        },
        "position": position(at),
        "replayed": replayed,
        "created": created,
        "queued_seconds": reply.queued_seconds,
        "computed_seconds": reply.computed_seconds,
    }
    if held := [item for item, _ in outputs if item.name.startswith(STATE_PREFIX)]:
        written["states"] = states(held, STATE_PREFIX)
    return written


def _values(item: pb.Tensor | pb.OutputColumn, shape: Sequence[int]) -> Any:
    """Returns the values as nested lists."""
    return write_array(np.frombuffer(item.data, DTYPES[item.dtype]).reshape(shape))


def opened(reply: pb.OpenResponse) -> dict[str, Any]:
    return {
        "position": position(reply.position),
        "created": reply.created,
        "fingerprint": reply.fingerprint.hex(),
        "ttl_ms": integer(reply.ttl_ms),
    }


def state(reply: pb.GetStateResponse) -> dict[str, Any]:
    return {"position": position(reply.position), "states": states(reply.state)}


def session(info: pb.SessionInfo, model: str) -> dict[str, Any]:
    """Describes a session. If its header is damaged: `damage`, and the position if it can be read."""
    written: dict[str, Any] = {"session": info.session, "model": model}
    if info.HasField("position"):
        written["position"] = position(info.position)
    if info.damage:
        return {**written, "damage": info.damage}
    return {
        **written,
        "fingerprint": info.fingerprint.hex(),
        "checkpoint_step": integer(info.checkpoint_step),
        "age_ms": integer(info.age_ms),
        "idle_ms": integer(info.idle_ms),
        "ttl_ms": integer(info.ttl_ms),
        "hot": info.hot,
    }


def log_size(header: Header) -> dict[str, Any]:
    """Returns how much of the session's inputs its record holds."""
    steps = header.position.step - header.checkpoint_step
    return {"steps": steps, "bytes": steps * header.step_bytes}


def listing(reply: pb.ListSessionsResponse, model: str) -> dict[str, Any]:
    return {
        "sessions": [session(info, model) for info in reply.sessions],
        "next_page_token": reply.next_page_token,
    }


def result(message: pb.SessionResult, names: FieldNames) -> dict[str, Any]:
    if message.HasField("error"):
        return {"error": error(message.error, names)}
    if message.HasField("position"):
        return {"position": position(message.position)}
    return {"deleted": message.deleted}


def results(reply: pb.SessionResults, names: FieldNames) -> dict[str, Any]:
    return {"results": [result(message, names) for message in reply.results]}


def models(reply: pb.ListModelsResponse) -> dict[str, Any]:
    return {"models": [model(info) for info in reply.models]}


def model(info: pb.ModelInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "fingerprint": info.fingerprint.hex(),
        "numerics": info.numerics,
        "exact": info.exact,
        "tolerance": info.tolerance,
        "engine": info.engine,
        "device": info.device,
        "input": _spec(info.input) if info.HasField("input") else None,
        "inputs": [{**_spec(item), "vocabulary": item.vocabulary} for item in info.inputs],
        "feature_names": list(info.feature_names),
        "vocabulary": info.vocabulary,
        "missing_values": info.missing_values,
        "outputs": [_spec(item) for item in info.outputs],
        "states": [_spec(item) for item in info.states],
        "feedback": _feedback(info.feedback) if info.HasField("feedback") else None,
        "max_chunk_steps": info.max_chunk_steps,
        "max_frame_items": info.max_frame_items,
        "max_log_steps": info.max_log_steps,
    }


def _feedback(message: pb.Feedback) -> dict[str, Any]:
    if message.inputs:
        return {"inputs": {item.name: list(item.sources) for item in message.inputs}}
    return {"sources": list(message.sources)}


def _spec(message: pb.TensorSpec) -> dict[str, Any]:
    return {"name": message.name, "dtype": NAMES[message.dtype], "shape": list(message.shape)}
