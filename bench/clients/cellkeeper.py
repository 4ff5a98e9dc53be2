"""Cellkeeper: through its own client, and with plain calls of the generated stub."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from cellkeeper import AsyncClient, Client  # isort: skip  # before gRPC, as in a program that does not import it itself

import grpc
import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub

from bench.load import Load
from bench.loops import Send
from bench.models import MODELS

from .frames import Group, create, frame_sender
from .samples import samples

OPENINGS = 64  # concurrently
CREATED = 1024  # sessions in one frame


class CellkeeperClient:
    def __init__(self, target: str, websocket: str | None = None) -> None:
        """websocket: the URL for frames and the client's steps."""
        self._target = target
        self._websocket = websocket
        # clients of earlier commits do not know the argument
        self._client = AsyncClient(target) if websocket is None else AsyncClient(target, websocket=websocket)
        self._blocking: Client | None = None
        self._channel = grpc.aio.insecure_channel(target)
        self._stub: Any = CellkeeperStub(self._channel)  # type: ignore[no-untyped-call]

    async def prepare(self, load: Load) -> Send:
        if load.kind == "client":
            return await self._official(load)
        if load.kind == "blocking":
            return self._blocked(load)
        if load.kind == "group":
            return await self._groups(load)
        if load.kind == "unary":
            return await self._unary(load)
        if load.kind in ("frames", "cold"):
            return await self._frames(load)
        raise ValueError(f"kind: got {load.kind!r}")

    async def close(self) -> None:
        await self._client.close()
        if self._blocking is not None:
            self._blocking.close()
        await self._channel.close(None)

    async def _official(self, load: Load) -> Send:
        gate = asyncio.Semaphore(OPENINGS)

        async def opened(number: int) -> Any:
            async with gate:
                return await self._client.open(_name(load, number), model=load.model)

        sessions = await asyncio.gather(*[opened(number) for number in range(load.flows)])
        value = samples(load.model, load.steps) if load.steps > 1 else samples(load.model)

        async def send(flow: int) -> int:
            await sessions[flow].step(value)
            return load.steps

        return send

    def _blocked(self, load: Load) -> Send:
        """Steps one session in the event loop's thread, which is blocked meanwhile."""
        if load.flows > 1:
            raise ValueError(f"flows: got {load.flows}, expected 1: a blocking call leaves no room for another")
        self._blocking = self._blocking or Client(self._target, websocket=self._websocket)
        session = self._blocking.session(_name(load, 0), model=load.model)
        value = samples(load.model)

        async def send(flow: int) -> int:
            session.step(value)
            return 1

        return send

    async def _groups(self, load: Load) -> Send:
        """Gives every flow its own group, as large as a frame."""
        groups = []
        for flow in range(load.flows):
            names = [_name(load, flow * load.items + number) for number in range(load.items)]
            groups.append(await self._client.group(names, model=load.model))
        inputs = samples(load.model, load.items, load.steps)
        rows = inputs.reshape(load.items, load.steps, -1) if load.steps > 1 else inputs.reshape(load.items, -1)

        async def send(flow: int) -> int:
            await groups[flow].step(rows)
            return load.items * load.steps

        return send

    async def _unary(self, load: Load) -> Send:
        positions = []
        for number in range(load.flows):
            request = pb.OpenRequest(model=load.model, session=_name(load, number), request_id=os.urandom(16))
            positions.append((await self._stub.Open(request)).position)
        features = MODELS[load.model].features
        inputs = samples(load.model, load.steps).tobytes()
        names = [_name(load, number) for number in range(load.flows)]

        async def send(flow: int) -> int:
            request = pb.StepRequest(
                model=load.model,
                session=names[flow],
                dtype=pb.FLOAT32,
                shape=[load.steps, features],
                inputs=inputs,
                position=positions[flow],
            )
            positions[flow] = (await self._stub.Step(request)).position
            return load.steps

        return send

    async def _frames(self, load: Load) -> Send:
        """Gives every flow its own sessions: as many as a frame has items or, for cold loads, its share of all."""
        each = load.sessions // load.flows if load.kind == "cold" else load.items
        groups = await asyncio.gather(*[self._group(load, flow * each, each) for flow in range(load.flows)])
        if self._websocket is None:
            return frame_sender(self._stub.StepStream(), list(groups), load)
        from .websocket import opened  # not above: a machine with a GPU may lack the package

        return frame_sender(await opened(self._websocket), list(groups), load)

    async def _group(self, load: Load, first: int, count: int) -> Group:
        names = [_name(load, number) for number in range(first, first + count)]
        parts = [await create(self._stub, load.model, names[at : at + CREATED]) for at in range(0, count, CREATED)]
        return Group(names, np.concatenate(parts))


def _name(load: Load, number: int) -> str:
    """Returns a session's name, which no other load uses."""
    return f"{load.kind}-{os.getpid()}-{load.flows}x{load.items}x{load.steps}-{number}"
