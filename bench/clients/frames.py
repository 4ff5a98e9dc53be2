"""Frames without the client: many sessions in each, several frames in flight on one stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import count
from typing import Any

import grpc
import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from numpy.typing import NDArray

from bench.load import Load
from bench.loops import Send
from bench.models import MODELS

from .samples import samples

POSITION_BYTES = 32
Positions = NDArray[np.uint8]  # [sessions, 32]


@dataclass(slots=True)
class Group:
    """The sessions that one flow steps."""

    names: list[str]
    positions: Positions


@dataclass(slots=True)
class Pending:
    group: Group
    chosen: NDArray[np.intp]
    done: asyncio.Future[None]


async def create(stub: Any, model: str, names: list[str], steps: int = 1) -> Positions:
    """Creates sessions by their first `steps` time steps. Returns the positions after them."""
    features = MODELS[model].features
    frame = pb.StepFrame(
        model=model,
        sessions=names,
        steps=[] if steps == 1 else [steps] * len(names),
        dtype=pb.FLOAT32,
        step_shape=[features],
        inputs=samples(model, len(names), steps).tobytes(),
    )
    reply = await stub.StepBatch(frame)
    positions = np.empty((len(names), POSITION_BYTES), np.uint8)
    take(reply, positions, np.arange(len(names)))
    return positions


def take(reply: Any, positions: Positions, chosen: NDArray[np.intp]) -> None:
    """Records the positions in a reply. Raises RuntimeError if an item failed."""
    if reply.errors or reply.HasField("frame_error"):
        raise RuntimeError(f"an item failed: {reply.errors[0] if reply.errors else reply.frame_error}")
    items = np.frombuffer(reply.items, "<u4")
    positions[chosen[items]] = np.frombuffer(reply.positions, np.uint8).reshape(-1, POSITION_BYTES)


def frame_sender(call: Any, groups: list[Group], load: Load) -> Send:
    """Returns a function whose messages are frames of load.items sessions of the flow's group, all or randomly chosen.

    call: an open stream, with the methods of gRPC's.
    """
    pending: dict[int, Pending] = {}
    numbers, writing, draw = count(1), asyncio.Lock(), np.random.default_rng(1)
    features = MODELS[load.model].features
    inputs = samples(load.model, load.items, load.steps).tobytes()
    steps = [] if load.steps == 1 else [load.steps] * load.items
    everybody = np.arange(load.items)

    async def read() -> None:
        try:
            await take_replies()
        finally:  # whatever the reason
            for frame in pending.values():
                if not frame.done.done():
                    frame.done.set_exception(RuntimeError("the stream ended"))

    async def take_replies() -> None:
        while (reply := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]
            frame = pending[reply.frame_id]
            try:
                take(reply, frame.group.positions, frame.chosen)
            except RuntimeError as error:
                frame.done.set_exception(error)
            else:
                if reply.last:
                    frame.done.set_result(None)

    reader = asyncio.ensure_future(read())

    async def send(flow: int) -> int:
        group, number = groups[flow], next(numbers)
        whole = load.items == len(group.names)
        chosen = everybody if whole else draw.choice(len(group.names), load.items, replace=False)
        positions = group.positions if whole else group.positions[chosen]
        frame = pb.StepFrame(
            frame_id=number,
            model=load.model,
            sessions=group.names if whole else [group.names[i] for i in chosen],
            steps=steps,
            dtype=pb.FLOAT32,
            step_shape=[features],
            inputs=inputs,
            positions=positions.tobytes(),
        )
        done = asyncio.get_running_loop().create_future()
        pending[number] = Pending(group, chosen, done)
        async with writing:
            await call.write(frame)
        await done
        del pending[number]
        if reader.done():
            raise RuntimeError(f"the stream ended: {await call.code()}")
        return load.items * load.steps

    return send
