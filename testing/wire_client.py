"""A small client that speaks the wire directly, so that nothing stands between a test and the server.

It computes positions from the text of the contract alone. It retries nothing and keeps nothing: whatever a server
answers reaches the test, as a Result or a Refused.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from typing import Any, NamedTuple

import grpc
import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub
from google.rpc import error_details_pb2, status_pb2
from numpy.typing import NDArray

WIRE_DTYPES = {"float32": pb.FLOAT32, "int32": pb.INT32}
CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # every client has its own connection
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # which limits an attempt to connect, as for a slow machine
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_retries", 0),
]


class Position(NamedTuple):
    """A position as the contract describes it."""

    generation: bytes
    step: int
    head: bytes

    @classmethod
    def of(cls, message: pb.Position) -> Position:
        return cls(message.generation, message.step, message.head)

    @classmethod
    def first(cls, generation: bytes) -> Position:
        return cls(generation, 0, blake2b(generation, digest_size=8).digest())

    def after(self, inputs: NDArray[Any]) -> Position:
        """Returns the position after these inputs: [T, ...] in the model's dtype."""
        head = self.head
        for row in inputs:
            head = blake2b(head + row.tobytes(), digest_size=8).digest()
        return Position(self.generation, self.step + len(inputs), head)

    def message(self) -> pb.Position:
        return pb.Position(generation=self.generation, step=self.step, head=self.head)

    def pack(self) -> bytes:
        return struct.pack("<16sQ8s", self.generation, self.step, self.head)


@dataclass(frozen=True)
class Chunk:
    """One chunk of one session: inputs [T, ...] in the model's dtype, and their position."""

    model: str
    session: str
    inputs: NDArray[Any]
    position: Position
    acked: int  # every reply up to this step is held
    outputs: tuple[str, ...] = ("prediction",)


@dataclass(frozen=True)
class Result:
    """A successful answer. outputs: raw bytes by name; state tensors are "state.<name>"."""

    position: Position
    outputs: dict[str, bytes]
    created: bool
    replayed: bool


@dataclass(frozen=True)
class Refused:
    """A refusal. reason: a name from the contract's enum, or the gRPC code's name if the server gave no reason."""

    reason: str
    message: str
    position: Position | None = None
    field: str = ""


Answer = Result | Refused


class Replica:
    """One server process as seen by one client: a channel, and one StepStream that is reopened when it breaks.

    timeout_s: for every call and every frame.
    """

    def __init__(self, target: str, timeout_s: float = 10.0) -> None:
        self.timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        self.stub: Any = CellkeeperStub(self._channel)  # type: ignore[no-untyped-call]
        self._stream: _Stream | None = None
        self._frame_ids = count(1)

    async def connected(self) -> None:
        """Waits until the channel is connected."""
        await self._channel.channel_ready()

    async def call(self, method: str, request: Any) -> Any:
        """Makes any unary call. Returns its reply, or a Refused."""
        try:
            return await getattr(self.stub, method)(request, timeout=self.timeout_s)
        except grpc.aio.AioRpcError as error:
            return _refused(error)

    async def unary(self, chunk: Chunk) -> Answer:
        """Sends the chunk with Step."""
        request = pb.StepRequest(
            model=chunk.model,
            session=chunk.session,
            dtype=WIRE_DTYPES[chunk.inputs.dtype.name],
            shape=chunk.inputs.shape,
            inputs=chunk.inputs.tobytes(),
            position=chunk.position.message(),
            acked=chunk.acked,
            outputs=chunk.outputs,
        )
        reply = await self.call("Step", request)
        if isinstance(reply, Refused):
            return reply
        outputs = {tensor.name: tensor.data for tensor in reply.outputs}
        return Result(Position.of(reply.position), outputs, reply.created, reply.replayed)

    async def unaries(self, chunks: Sequence[Chunk]) -> list[Answer]:
        """Sends each chunk with a Step of its own, all concurrently."""
        return list(await asyncio.gather(*map(self.unary, chunks)))

    async def batch(self, chunks: Sequence[Chunk]) -> list[Answer]:
        """Sends the chunks as one StepBatch; all must have the same model and outputs."""
        reply = await self.call("StepBatch", self._frame(chunks))
        if isinstance(reply, Refused):
            return [reply] * len(chunks)
        answers = read_reply(reply, chunks)
        return [answers[item] for item in range(len(chunks))]

    async def stream(self, chunks: Sequence[Chunk]) -> list[Answer]:
        """Sends the chunks as one frame of the StepStream. Frames are sent in the order of these calls."""
        if self._stream is None or self._stream.broken:
            self._stream = _Stream(self.stub)
        return await self._stream.send(self._frame(chunks), chunks, self.timeout_s)

    def _frame(self, chunks: Sequence[Chunk]) -> pb.StepFrame:
        first, steps = chunks[0], [len(chunk.inputs) for chunk in chunks]
        return pb.StepFrame(
            frame_id=next(self._frame_ids),
            model=first.model,
            sessions=[chunk.session for chunk in chunks],
            steps=() if set(steps) == {1} else steps,  # absent: single steps
            dtype=WIRE_DTYPES[first.inputs.dtype.name],
            step_shape=first.inputs.shape[1:],
            inputs=b"".join(chunk.inputs.tobytes() for chunk in chunks),
            positions=b"".join(chunk.position.pack() for chunk in chunks),
            acked=struct.pack(f"<{len(chunks)}Q", *(chunk.acked for chunk in chunks)),
            outputs=first.outputs,
            timeout_ms=int(self.timeout_s * 1000),
        )

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.close()
        await self._channel.close(None)

    async def __aenter__(self) -> Replica:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@dataclass
class _Waiting:
    chunks: Sequence[Chunk]
    answers: dict[int, Answer]
    done: asyncio.Future[None]


class _Stream:
    """One StepStream: sends frames in order and joins the parts of replies."""

    def __init__(self, stub: Any) -> None:
        self.broken = False
        self._fault: AssertionError | None = None
        self._out: asyncio.Queue[pb.StepFrame] = asyncio.Queue()
        self._waiting: dict[int, _Waiting] = {}
        self._call = stub.StepStream()
        loop = asyncio.get_running_loop()
        self._writer = loop.create_task(self._write())
        self._reader = loop.create_task(self._read())

    async def send(self, frame: pb.StepFrame, chunks: Sequence[Chunk], timeout_s: float) -> list[Answer]:
        waiting = _Waiting(chunks, {}, asyncio.get_running_loop().create_future())
        self._waiting[frame.frame_id] = waiting
        self._out.put_nowait(frame)
        await asyncio.wait([waiting.done], timeout=timeout_s)
        if self._fault is not None:
            raise self._fault
        why = Refused("UNAVAILABLE" if self.broken else "DEADLINE_EXCEEDED", "the stream did not answer this item")
        del self._waiting[frame.frame_id]
        return [waiting.answers.get(item, why) for item in range(len(chunks))]

    async def close(self) -> None:
        self._call.cancel()
        await asyncio.wait([self._reader, self._writer])

    async def _write(self) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            while True:
                await self._call.write(await self._out.get())

    async def _read(self) -> None:
        try:
            async for reply in self._call:
                self._take(reply)
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass  # `broken` tells every waiting frame
        except AssertionError as fault:
            self._fault = fault
        finally:
            self.broken = True
            self._writer.cancel()
            for waiting in self._waiting.values():
                if not waiting.done.done():
                    waiting.done.set_result(None)

    def _take(self, reply: pb.StepFrameReply) -> None:
        waiting = self._waiting.get(reply.frame_id)
        if waiting is None:
            return  # it came after its timeout
        answers = read_reply(reply, waiting.chunks)
        twice = waiting.answers.keys() & answers.keys()
        if twice:
            raise AssertionError(f"items {sorted(twice)} of frame {reply.frame_id} were answered twice")
        waiting.answers |= answers
        if reply.last and not waiting.done.done():
            waiting.done.set_result(None)
            if len(waiting.answers) != len(waiting.chunks):
                raise AssertionError(f"frame {reply.frame_id} ended with {len(waiting.answers)} items answered")


def read_reply(reply: pb.StepFrameReply, chunks: Sequence[Chunk]) -> dict[int, Answer]:
    """Returns the answers in one reply frame, by item."""
    answers: dict[int, Answer] = {error.item: _item_refused(error.error) for error in reply.errors}
    if reply.HasField("frame_error"):
        return dict.fromkeys(range(len(chunks)), _item_refused(reply.frame_error))
    items = np.frombuffer(reply.items, "<u4").tolist()
    steps = list(reply.steps) or [1] * len(items)
    taken = {column.name: 0 for column in reply.outputs}
    for index, (item, count_of_steps) in enumerate(zip(items, steps, strict=True)):
        outputs = {}
        for column in reply.outputs:
            size = 4 * int(np.prod(column.shape)) * (1 if column.per_item else count_of_steps)
            start = taken[column.name]
            outputs[column.name] = column.data[start : start + size]
            taken[column.name] = start + size
        position = Position(*struct.unpack_from("<16sQ8s", reply.positions, 32 * index))
        flags = reply.flags[index]
        answers[item] = Result(position, outputs, bool(flags & 1), bool(flags & 2))
    if any(taken[column.name] != len(column.data) for column in reply.outputs):
        raise AssertionError("a column is longer than its items")
    return answers


def _item_refused(error: pb.Error) -> Refused:
    position = Position.of(error.position) if error.HasField("position") else None
    return Refused(pb.Reason.Name(error.reason), error.message, position, error.field)


def _refused(error: grpc.aio.AioRpcError) -> Refused:
    metadata: Any = error.trailing_metadata()
    for key, value in metadata or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(bytes(value))
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return Refused(
                        info.reason, status.message, _standing(info.metadata), info.metadata.get("field", "")
                    )
    return Refused(error.code().name, error.details() or "")


def _standing(metadata: Any) -> Position | None:
    if "step" not in metadata:
        return None
    return Position(bytes.fromhex(metadata["generation"]), int(metadata["step"]), bytes.fromhex(metadata["head"]))


Sender = Callable[[Replica, Sequence[Chunk]], Any]
WAYS: dict[str, Sender] = {"unary": Replica.unaries, "batch": Replica.batch, "stream": Replica.stream}
