"""Raw calls of the service, without the client: a chunk sent in any of the three ways gives the same form of result."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc
import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub
from cellkeeper_service.domain.position import Position, advance
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status
from numpy.typing import NDArray

Array = NDArray[Any]
Way = Literal["unary", "batch", "stream"]
WAYS: tuple[Way, ...] = ("unary", "batch", "stream")
TIMEOUT_S = 30.0
ABSENT = bytes(32)
DTYPES = {pb.FLOAT32: "<f4", pb.FLOAT64: "<f8", pb.INT32: "<i4", pb.INT64: "<i8"}
WIRE_DTYPES = {
    "float32": pb.FLOAT32,
    "float64": pb.FLOAT64,
    "float16": pb.FLOAT16,
    "int32": pb.INT32,
    "int64": pb.INT64,
}


@dataclass(frozen=True)
class Result:
    """One item's reply or error.

    code: "OK", or a name of google.rpc.Code. position: after the chunk; in an error, the record's. outputs: by name,
    [T, ...]; state tensors as "state.<name>".
    """

    code: str
    reason: str = ""
    message: str = ""
    field: str = ""
    position: Position | None = None
    outputs: dict[str, Array] = dataclasses.field(default_factory=dict)
    created: bool = False
    replayed: bool = False
    retry_delay_ms: int = 0

    @property
    def sums(self) -> list[float]:
        """The counting model's predictions, one per time step."""
        if self.code != "OK":
            raise AssertionError(f"expected outputs, got {self}")
        values: list[float] = self.outputs["prediction"].reshape(-1).tolist()
        return values

    @property
    def after(self) -> Position:
        if self.code != "OK" or self.position is None:
            raise AssertionError(f"expected a reply, got {self}")
        return self.position


@dataclass(frozen=True)
class Chunk:
    """inputs: [T, F] or token ids [T]."""

    session: str
    inputs: Array
    position: Position | None = None
    acked: int | None = None


class Refused(Exception):
    """A whole call or frame was refused."""

    def __init__(self, result: Result) -> None:
        super().__init__(str(result))
        self.result = result


def numbers(*values: float) -> Array:
    """Returns inputs of the counting model: one feature, one time step per value."""
    return np.array(values, np.float32).reshape(-1, 1)


def some_inputs(seed: int, steps: int) -> Array:
    """Returns inputs of the LSTM: [steps, 3]."""
    return np.random.default_rng(seed).standard_normal((steps, 3)).astype(np.float32)


def placed(position: Position, inputs: Array) -> Position:
    """Returns the position after these inputs, as a client computes it: from the bytes of each time step."""
    return advance(position, inputs.tobytes(), inputs[0].nbytes)


def new_id() -> bytes:
    return os.urandom(16)


def to_wire(position: Position) -> pb.Position:
    return pb.Position(generation=position.generation, step=position.step, head=position.head)


def from_wire(message: pb.Position) -> Position:
    return Position(message.generation, message.step, message.head)


def step_message(model: str, chunk: Chunk, *, peek: bool = False, outputs: Sequence[str] = ()) -> pb.StepRequest:
    return pb.StepRequest(
        model=model,
        session=chunk.session,
        dtype=WIRE_DTYPES[chunk.inputs.dtype.name],
        shape=chunk.inputs.shape,
        inputs=chunk.inputs.tobytes(),
        position=None if chunk.position is None else to_wire(chunk.position),
        acked=chunk.acked,
        peek=peek,
        outputs=outputs,
    )


def frame_message(
    model: str, chunks: Sequence[Chunk], *, peek: bool = False, outputs: Sequence[str] = (), timeout_ms: int = 0
) -> pb.StepFrame:
    positions = [ABSENT if chunk.position is None else chunk.position for chunk in chunks]
    acked = [0 if chunk.acked is None else chunk.acked for chunk in chunks]
    return pb.StepFrame(
        frame_id=7,
        model=model,
        sessions=[chunk.session for chunk in chunks],
        steps=[len(chunk.inputs) for chunk in chunks],
        dtype=WIRE_DTYPES[chunks[0].inputs.dtype.name],
        step_shape=chunks[0].inputs.shape[1:],
        inputs=b"".join(chunk.inputs.tobytes() for chunk in chunks),
        positions=b"".join(positions),
        acked=b"".join(n.to_bytes(8, "little") for n in acked) if any(c.acked is not None for c in chunks) else b"",
        peek=peek,
        outputs=outputs,
        timeout_ms=timeout_ms,
    )


class Api:
    """One model of one server."""

    def __init__(self, stub: CellkeeperStub, model: str = "count") -> None:
        self.stub: Any = stub
        self.model = model

    def open(self, session: str, **fields: Any) -> Position:
        """Returns the position after Open, with a new request_id unless one is given. Raises Refused."""
        return from_wire(self.opened(session, **fields).position)

    def opened(self, session: str, **fields: Any) -> pb.OpenResponse:
        request = pb.OpenRequest(model=self.model, session=session, **{"request_id": new_id(), **fields})
        reply: pb.OpenResponse = self.call("Open", request)
        return reply

    def call(self, method: str, request: Any, timeout_s: float = TIMEOUT_S) -> Any:
        """Makes a unary call. Raises Refused."""
        try:
            return getattr(self.stub, method)(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise Refused(from_status(error)) from error

    def send(
        self, way: Way, chunk: Chunk, *, peek: bool = False, outputs: Sequence[str] = (), timeout_s: float = TIMEOUT_S
    ) -> Result:
        """Sends one chunk, in one of the three ways. Never raises for the server's answers."""
        if way == "unary":
            return self.send_step(step_message(self.model, chunk, peek=peek, outputs=outputs), timeout_s)
        message = frame_message(self.model, [chunk], peek=peek, outputs=outputs)
        return self.send_frame(way, message, timeout_s)[0]

    def send_step(self, message: pb.StepRequest, timeout_s: float = TIMEOUT_S) -> Result:
        try:
            return from_step(self.call("Step", message, timeout_s))
        except Refused as refused:
            return refused.result

    def send_frame(self, way: Way, message: pb.StepFrame, timeout_s: float = TIMEOUT_S) -> list[Result]:
        """Returns one result per item. Raises Refused for a whole frame."""
        if way == "batch":
            return from_frames(len(message.sessions), [self.call("StepBatch", message, timeout_s)])
        try:
            replies = list(self.stub.StepStream(iter([message]), timeout=timeout_s))
        except grpc.RpcError as error:
            raise Refused(from_status(error)) from error
        return from_frames(len(message.sessions), replies)

    def position(self, session: str) -> Position:
        """Returns the record's position."""
        return from_wire(self.info(session).position)

    def info(self, session: str) -> pb.SessionInfo:
        info: pb.SessionInfo = self.call("GetSession", pb.GetSessionRequest(model=self.model, session=session))
        return info


def from_step(reply: pb.StepResponse) -> Result:
    outputs = {
        tensor.name: np.frombuffer(tensor.data, DTYPES[tensor.dtype]).reshape(tensor.shape) for tensor in reply.outputs
    }
    return Result(
        "OK",
        position=from_wire(reply.position),
        outputs=outputs,
        created=reply.created,
        replayed=reply.replayed,
    )


def from_frames(count: int, replies: Sequence[pb.StepFrameReply]) -> list[Result]:
    """Returns the results of one frame's `count` items, from its reply or the parts of it."""
    results: dict[int, Result] = {}
    for reply in replies:
        if reply.HasField("frame_error"):
            raise Refused(from_error(reply.frame_error))
        results.update(_from_columns(reply))
        results.update({entry.item: from_error(entry.error) for entry in reply.errors})
    if sorted(results) != list(range(count)) or [reply.last for reply in replies] != [False] * (len(replies) - 1) + [
        True
    ]:
        raise AssertionError(f"expected each of {count} items once and `last` at the end, got {replies}")
    return [results[item] for item in range(count)]


def _from_columns(reply: pb.StepFrameReply) -> dict[int, Result]:
    items = np.frombuffer(reply.items, "<u4").tolist()
    steps = list(reply.steps) or [1] * len(items)
    starts = np.cumsum([0, *steps])
    results = {}
    for at, item in enumerate(items):
        outputs = {}
        for column in reply.outputs:
            values = np.frombuffer(column.data, DTYPES[column.dtype]).reshape(-1, *column.shape)
            outputs[column.name] = values[at] if column.per_item else values[starts[at] : starts[at + 1]]
        results[item] = Result(
            "OK",
            position=Position.unpack(reply.positions, 32 * at),
            outputs=outputs,
            created=bool(reply.flags[at] & 1),
            replayed=bool(reply.flags[at] & 2),
        )
    return results


def from_error(error: pb.Error) -> Result:
    return Result(
        code_pb2.Code.Name(error.code),
        reason=pb.Reason.Name(error.reason),
        message=error.message,
        field=error.field,
        position=from_wire(error.position) if error.HasField("position") else None,
        retry_delay_ms=error.retry_delay_ms,
    )


def from_status(error: Any) -> Result:
    """Converts a failed call's status: the code, and the ErrorInfo and RetryInfo if present."""
    code, message = error.code().name, error.details() or ""
    status = rpc_status.from_call(error)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details if status else ():
        detail.Unpack(info)
        detail.Unpack(retry)
    position = None
    if "step" in info.metadata:
        generation, head = bytes.fromhex(info.metadata["generation"]), bytes.fromhex(info.metadata["head"])
        position = Position(generation, int(info.metadata["step"]), head)
    return Result(
        code, info.reason, message, info.metadata["field"], position, retry_delay_ms=retry.retry_delay.ToMilliseconds()
    )
