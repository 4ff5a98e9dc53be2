"""Closed loops: everybody sends the next step as soon as the last is answered. Each returns steps a second."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np
from cellkeeper import AsyncClient
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub

from . import echo

FEATURES = 32
STEP_REPLY_BYTES = 80  # a unary reply of one output value, with its position
Counted = Callable[[float], Awaitable[int]]


def sample(count: int = 1) -> bytes:
    """`count` inputs of the model."""
    return np.random.default_rng(0).standard_normal((count, FEATURES)).astype("<f4").tobytes()


async def rate(count: Counted, seconds: float) -> float:
    """Steps a second of `count`, which gets the time at which to end and returns its steps."""
    start = time.perf_counter()
    steps = await count(start + seconds)
    return steps / (time.perf_counter() - start)


async def many(flows: list[Awaitable[int]]) -> int:
    return sum(await asyncio.gather(*flows))


# ceilings


async def echo_unary(target: str, seconds: float, flows: int) -> float:
    request = (STEP_REPLY_BYTES).to_bytes(4, "little") + sample() + bytes(80)
    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.unary_unary(echo.UNARY, bytes, bytes)

        async def flow(until: float) -> int:
            steps = 0
            while time.perf_counter() < until:
                await call(request)
                steps += 1
            return steps

        return await rate(lambda until: many([flow(until) for _ in range(flows)]), seconds)


async def echo_frames(target: str, seconds: float, sessions: int) -> float:
    request = (sessions * 41).to_bytes(4, "little") + sample(sessions) + bytes(sessions * 42)
    async with grpc.aio.insecure_channel(target) as channel:
        method: Any = channel.stream_stream(echo.STREAM, bytes, bytes)
        call = method()

        async def count(until: float) -> int:
            steps = 0
            while time.perf_counter() < until:
                await call.write(request)
                await call.read()
                steps += sessions
            return steps

        result = await rate(count, seconds)
        await call.done_writing()
        return result


# the service


async def raw_unary(target: str, seconds: float, flows: int) -> float:
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = CellkeeperStub(channel)  # type: ignore[no-untyped-call]
        opened = await asyncio.gather(*[open_session(stub, f"unary-{os.getpid()}-{i}") for i in range(flows)])
        inputs = sample()

        async def flow(session: str, position: pb.Position, until: float) -> int:
            steps = 0
            while time.perf_counter() < until:
                request = pb.StepRequest(
                    session=session, dtype=pb.FLOAT32, shape=[1, FEATURES], inputs=inputs, position=position
                )
                position = (await stub.Step(request)).position
                steps += 1
            return steps

        return await rate(lambda until: many([flow(*start, until) for start in opened]), seconds)


async def official(target: str, seconds: float, flows: int) -> tuple[float, float]:
    """Steps a second, and steps in one frame on the average."""
    async with AsyncClient(target) as client:
        sessions = await asyncio.gather(*[client.open(f"client-{os.getpid()}-{i}") for i in range(flows)])
        value = np.frombuffer(sample(), "<f4")

        async def flow(number: int, until: float) -> int:
            steps = 0
            while time.perf_counter() < until:
                await sessions[number].step(value)
                steps += 1
            return steps

        result = await rate(lambda until: many([flow(number, until) for number in range(flows)]), seconds)
        return result, client.counters.steps_sent / max(client.counters.frames_sent, 1)


async def frames(target: str, seconds: float, sessions: int) -> float:
    """One stream, one frame in flight."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = CellkeeperStub(channel)  # type: ignore[no-untyped-call]
        names = [f"frame-{os.getpid()}-{i}" for i in range(sessions)]
        opened = await asyncio.gather(*[open_session(stub, name) for name in names])
        positions = np.frombuffer(b"".join(pack(start) for _, start in opened), "u1").reshape(sessions, 32).copy()
        inputs, call = sample(sessions), stub.StepStream()

        async def count(until: float) -> int:
            steps = 0
            while time.perf_counter() < until:
                frame = pb.StepFrame(
                    sessions=names,
                    dtype=pb.FLOAT32,
                    step_shape=[FEATURES],
                    inputs=inputs,
                    positions=positions.tobytes(),
                )
                await call.write(frame)
                async for reply in replies_of(call):
                    if reply.errors:
                        raise RuntimeError(f"an item failed: {reply.errors[0]}")
                    items = np.frombuffer(reply.items, "<u4")
                    positions[items] = np.frombuffer(reply.positions, "u1").reshape(-1, 32)
                steps += sessions
            return steps

        result = await rate(count, seconds)
        await call.done_writing()
        return result


async def replies_of(call: Any) -> AsyncIterator[Any]:
    """The parts of one frame's reply."""
    while True:
        reply = await call.read()
        yield reply
        if reply.last:
            return


async def open_session(stub: Any, name: str) -> tuple[str, pb.Position]:
    opened = await stub.Open(pb.OpenRequest(session=name, request_id=os.urandom(16)))
    return name, opened.position


def pack(position: pb.Position) -> bytes:
    return position.generation + position.step.to_bytes(8, "little") + position.head
