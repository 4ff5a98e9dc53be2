"""The echo server's client, with messages as large as Cellkeeper's."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from bench.load import Load
from bench.loops import Send
from bench.models import MODELS
from bench.servers import echo

from .samples import samples

NAME = "frames-12345-2x256x1-100"


class EchoClient:
    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._readers: list[asyncio.Task[None]] = []

    async def prepare(self, load: Load) -> Send:
        if load.kind == "unary":
            return self._unary(load)
        if load.kind == "frames":
            return self._frames(load)
        raise ValueError(f"kind: got {load.kind!r}")

    async def close(self) -> None:
        await self._channel.close(None)

    def _unary(self, load: Load) -> Send:
        call: Any = self._channel.unary_unary(echo.UNARY, bytes, bytes)
        message = _sized(step_request(load), step_response(load))

        async def send(flow: int) -> int:
            await call(message)
            return load.steps

        return send

    def _frames(self, load: Load) -> Send:
        """Sends messages over one stream; answers come in the same order."""
        method: Any = self._channel.stream_stream(echo.STREAM, bytes, bytes)
        call, writing = method(), asyncio.Lock()
        waiting: deque[asyncio.Future[None]] = deque()
        message = _sized(step_frame(load), step_frame_reply(load))

        async def read() -> None:
            while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                waiting.popleft().set_result(None)
            for done in waiting:
                done.set_exception(RuntimeError("the echo's stream ended"))

        self._readers.append(asyncio.ensure_future(read()))

        async def send(flow: int) -> int:
            done = asyncio.get_running_loop().create_future()
            async with writing:
                waiting.append(done)
                await call.write(message)
            await done
            return load.items * load.steps

        return send


def _sized(request: bytes, reply: bytes) -> bytes:
    """Returns a message as long as `request` that asks for an answer as long as `reply`."""
    return len(reply).to_bytes(4, "little") + request[4:]


def _position() -> Any:
    return pb.Position(generation=bytes(16), step=1000, head=bytes(8))


def step_request(load: Load) -> bytes:
    inputs = samples(load.model, load.steps)
    request = pb.StepRequest(
        model=load.model, session=NAME, dtype=pb.FLOAT32, shape=inputs.shape, inputs=inputs.tobytes()
    )
    request.position.CopyFrom(_position())
    return bytes(request.SerializeToString())


def step_response(load: Load) -> bytes:
    output = pb.Tensor(name="prediction", dtype=pb.FLOAT32, shape=[load.steps, 1], data=bytes(4 * load.steps))
    response = pb.StepResponse(outputs=[output], position=_position(), queued_seconds=0.1, computed_seconds=0.1)
    return bytes(response.SerializeToString())


def step_frame(load: Load) -> bytes:
    frame = pb.StepFrame(
        frame_id=1000,
        model=load.model,
        sessions=[NAME] * load.items,
        steps=[] if load.steps == 1 else [load.steps] * load.items,
        dtype=pb.FLOAT32,
        step_shape=[MODELS[load.model].features],
        inputs=samples(load.model, load.items, load.steps).tobytes(),
        positions=bytes(32 * load.items),
    )
    return bytes(frame.SerializeToString())


def step_frame_reply(load: Load) -> bytes:
    values = bytes(4 * load.items * load.steps)
    column = pb.OutputColumn(name="prediction", dtype=pb.FLOAT32, shape=[1], data=values)
    reply = pb.StepFrameReply(
        frame_id=1000,
        items=bytes(4 * load.items),
        positions=bytes(32 * load.items),
        outputs=[column],
        flags=bytes(load.items),
        queued_seconds=0.1,
        computed_seconds=0.1,
        last=True,
    )
    return bytes(reply.SerializeToString())
