"""Converts between the contract's messages and this package's types, and translates gRPC errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from numpy.typing import ArrayLike

from .._session.frame_format import expected_outputs
from .._session.inputs import convert_state, little_endian
from ..errors import (
    BY_REASON,
    AccessDenied,
    CellkeeperError,
    CommitConflict,
    DeadlineExceeded,
    HistoryError,
    InvalidArgument,
    ResourceExhausted,
    ServerError,
    SessionExists,
    SessionNotFound,
    StepCompacted,
    Unavailable,
)
from ..position import Position
from ..types import STATE_PREFIX, Array, Model, SessionInfo, StepReply, TensorSpec

_DTYPES: dict[Any, str] = {
    pb.FLOAT32: "float32",
    pb.FLOAT64: "float64",
    pb.FLOAT16: "float16",
    pb.INT32: "int32",
    pb.INT64: "int64",
}
_NUMBERS: dict[str, Any] = {name: number for number, name in _DTYPES.items()}
_LITTLE_ENDIAN: dict[Any, np.dtype[Any]] = {number: little_endian(name) for number, name in _DTYPES.items()}

_BY_CODE: dict[grpc.StatusCode, type[CellkeeperError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: SessionNotFound,
    grpc.StatusCode.ALREADY_EXISTS: SessionExists,
    grpc.StatusCode.FAILED_PRECONDITION: HistoryError,
    grpc.StatusCode.ABORTED: CommitConflict,
    grpc.StatusCode.OUT_OF_RANGE: StepCompacted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
}


def unreadable(what: str) -> ServerError:
    """Returns the error for a reply that the contract does not allow."""
    return ServerError(what, reason="INTERNAL_ERROR")


def broken_contract(what: str, field: str) -> ServerError:
    """Returns the error for a reply that lacks what was requested."""
    text = f"{what}; this server or proxy does not keep to the contract: check what answers at the client's target"
    return ServerError(text, reason="INTERNAL_ERROR", field=field)


def dtype_number(name: str) -> Any:
    return _NUMBERS[name]


def dtype_of(number: int) -> np.dtype[Any]:
    try:
        return _LITTLE_ENDIAN[number]
    except KeyError:
        text = f"the server sent dtype {number}, which this version of the client does not know"
        raise unreadable(text) from None


def position_message(position: Position) -> Any:
    return pb.Position(generation=position.generation, step=position.step, head=position.head)


def position_of(message: Any) -> Position:
    return Position(message.generation, message.step, message.head)


def array_of(tensor: Any) -> Array:
    """Returns the tensor as its own writable array, in the machine's byte order."""
    dtype = dtype_of(tensor.dtype)
    if len(tensor.data) != dtype.itemsize * math.prod(tensor.shape):
        raise unreadable(f"the server sent {len(tensor.data)} bytes for tensor {tensor.name!r}")
    raw: Array = np.frombuffer(tensor.data, dtype).reshape(tuple(tensor.shape))
    return raw.astype(dtype.newbyteorder("="))


def state_reply_of(answer: Any) -> StepReply:
    """Returns the tensors and the position of a GetStateResponse."""
    state = {STATE_PREFIX + tensor.name.removeprefix(STATE_PREFIX): array_of(tensor) for tensor in answer.state}
    return StepReply(state, position_of(answer.position))


def check_state(reply: StepReply, model: Model) -> None:
    """Raises ServerError if one of the model's state tensors is missing."""
    shapes = {name: values.shape for name, values in reply.state.items()}
    expected = {spec.name: spec.shape for spec in model.states}
    if not expected.items() <= shapes.items():
        raise broken_contract(f"state: the server sent {shapes}, expected {expected}", "state")


def state_messages(model: Model, state: Mapping[str, ArrayLike], field: str) -> list[Any]:
    return [
        pb.Tensor(name=spec.name, dtype=_NUMBERS[spec.dtype], shape=spec.shape, data=raw)
        for spec, raw in convert_state(model, state, field)
    ]


def _spec_of(message: Any) -> TensorSpec:
    return TensorSpec(message.name, dtype_of(message.dtype).name, tuple(message.shape), message.vocabulary)


def model_of(info: Any) -> Model:
    inputs = tuple(_spec_of(spec) for spec in info.inputs)
    packed = TensorSpec("inputs", "uint8", (sum(spec.nbytes for spec in inputs),))  # a time step's bytes
    feedback = info.feedback if info.HasField("feedback") else None
    fed_back = tuple((one.name, tuple(one.sources)) for one in feedback.inputs) if feedback is not None else None
    return Model(
        name=info.name,
        fingerprint=info.fingerprint,
        numerics=info.numerics,
        exact=info.exact,
        tolerance=info.tolerance,
        engine=info.engine,
        device=info.device,
        input=packed if inputs else _spec_of(info.input),
        vocabulary=info.vocabulary,
        missing_values=info.missing_values,
        outputs=tuple(_spec_of(spec) for spec in info.outputs),
        states=tuple(_spec_of(spec) for spec in info.states),
        max_chunk_steps=info.max_chunk_steps,
        max_frame_items=info.max_frame_items,
        max_log_steps=info.max_log_steps,
        feedback=tuple(feedback.sources) if feedback is not None and not inputs else None,
        feature_names=tuple(info.feature_names),
        inputs=inputs,
        input_feedback=fed_back if inputs else None,
        max_message_bytes=info.max_message_bytes,
    )


def missing_output(outputs: Sequence[Any], expected: Sequence[str]) -> ServerError | None:
    """Returns the error for a reply that lacks one of the expected outputs; None if it has them all."""
    if len(outputs) == len(expected) == 1 and outputs[0].name == expected[0]:  # the common case
        return None
    sent = [output.name for output in outputs]
    for name in expected:
        if name not in sent:
            return broken_contract(f"outputs: the server sent {sent}, expected {name!r}, as requested", "outputs")
    return None


def as_requested(outputs: Sequence[Any], expected: Sequence[str]) -> Sequence[Any]:
    """Returns a reply's outputs in the order in which they were requested; servers have the model's order.

    expected: their names. Raises ServerError if one is missing.
    """
    if (missing := missing_output(outputs, expected)) is not None:
        raise missing
    if len(outputs) < 2:
        return outputs
    places = {name: place for place, name in enumerate(expected)}
    return sorted(outputs, key=lambda output: places.get(output.name, len(places)))


def peek_reply_of(answer: Any, model: Model, names: Sequence[str], single: bool) -> StepReply:
    """Returns the reply to a peek. Raises ServerError if it lacks an output.

    names: the requested outputs. single: the input had no time axis, so the outputs have none.
    """
    expected = expected_outputs(names, [spec.name for spec in model.states])
    outputs = {tensor.name: array_of(tensor) for tensor in as_requested(answer.outputs, expected)}
    if single:
        outputs = {name: array if name.startswith(STATE_PREFIX) else array[0] for name, array in outputs.items()}
    return StepReply(
        outputs,
        position_of(answer.position),
        queued_seconds=answer.queued_seconds,
        computed_seconds=answer.computed_seconds,
    )


def session_info_of(info: Any) -> SessionInfo:
    return SessionInfo(
        session=info.session,
        position=position_of(info.position),
        fingerprint=info.fingerprint,
        checkpoint_step=info.checkpoint_step,
        age_seconds=info.age_ms / 1000,
        idle_seconds=info.idle_ms / 1000,
        ttl_seconds=info.ttl_ms / 1000,
        hot=info.hot,
        damage=info.damage,
    )


# ---------------------------------------------------------------------------------------------- errors


def reason_of(number: int) -> str:
    """Returns the wire's name of the reason; empty for none, or for one that this version does not know."""
    if number == pb.REASON_UNSPECIFIED or number not in pb.Reason.values():
        return ""
    return str(pb.Reason.Name(number))


def _class_of(reason: str, code: grpc.StatusCode | None) -> type[CellkeeperError]:
    if reason in BY_REASON:
        return BY_REASON[reason]
    return _BY_CODE.get(code, ServerError) if code is not None else ServerError


def _code_of(number: int) -> grpc.StatusCode | None:
    return next((code for code in grpc.StatusCode if code.value[0] == number), None)


def error_of(message: Any) -> CellkeeperError:
    """Converts the contract's `Error` to an exception."""
    reason = reason_of(message.reason)
    return _class_of(reason, _code_of(message.code))(
        message.message,
        reason=reason,
        field=message.field,
        position=position_of(message.position) if message.HasField("position") else None,
        retry_delay_ms=message.retry_delay_ms,
    )


def from_grpc(error: grpc.RpcError, target: str) -> CellkeeperError:
    """Converts any gRPC error to one of ours. target: where the call went."""
    code = error.code() if hasattr(error, "code") else None
    text = (error.details() if hasattr(error, "details") else "") or "no details"
    reason, field, position, delay_ms = "", "", None, 0
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has a call's methods
    except (ValueError, AttributeError, TypeError):
        status = None  # made by a proxy or by gRPC itself
    for detail in status.details if status is not None else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason if info.reason in BY_REASON else ""
            field = info.metadata.get("field", "")
            position = _metadata_position(info.metadata)
        elif detail.Unpack(retry):
            delay_ms = retry.retry_delay.ToMilliseconds()
    kind = _class_of(reason, code)
    if not reason and kind in (Unavailable, DeadlineExceeded, ServerError):
        text = f"{target}: {code.name if code is not None else 'UNKNOWN'}: {text}"
    return kind(text, reason=reason, field=field, position=position, retry_delay_ms=delay_ms)


def from_json(message: Any, target: str) -> tuple[grpc.StatusCode | None, CellkeeperError]:
    """Returns the status and the error from a refusal over HTTP.

    The status is None if the code is unknown. Raises ValueError for anything but a refusal.
    """
    error = message.get("error") if isinstance(message, dict) else None
    if not isinstance(error, dict):
        raise ValueError("the message has no error")
    details = error.get("details")
    details = details if isinstance(details, dict) else {}
    code = grpc.StatusCode.__members__.get(str(error.get("code")))
    reason = str(error.get("reason")) if error.get("reason") in BY_REASON else ""
    at, delay_ms = details.get("position"), details.get("retry_delay_ms", 0)
    made = _class_of(reason, code)(
        str(error.get("message")) if reason else f"{target}: {error.get('code')}: {error.get('message')}",
        reason=reason,
        field=str(details.get("field", "")),
        position=_metadata_position(at) if isinstance(at, dict) else None,
        retry_delay_ms=delay_ms if isinstance(delay_ms, int) else 0,
    )
    return code, made


def _metadata_position(metadata: Mapping[str, str]) -> Position | None:
    """Parses a position from text metadata: generation and head are hexadecimal digits."""
    try:
        return Position.parse(":".join(str(metadata[key]) for key in ("generation", "step", "head")))
    except (KeyError, ValueError):
        return None
