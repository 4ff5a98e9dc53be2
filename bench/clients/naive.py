"""The naive service's client: a plain stub."""

from __future__ import annotations

import os
from typing import Any

import grpc

from bench.load import Load
from bench.loops import Send
from bench.servers.naive_wire import METHOD, MODEL_BYTES, SESSION_BYTES

from .samples import samples


class NaiveClient:
    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)

    async def prepare(self, load: Load) -> Send:
        call: Any = self._channel.unary_unary(METHOD, bytes, bytes)
        model = load.model.encode().ljust(MODEL_BYTES)
        inputs = samples(load.model, load.steps).tobytes()
        names = [f"{load.kind}-{os.getpid()}-{load.flows}-{number}".encode() for number in range(load.flows)]
        requests = [model + name.ljust(SESSION_BYTES) + inputs for name in names]

        async def send(flow: int) -> int:
            await call(requests[flow])
            return load.steps

        return send

    async def close(self) -> None:
        await self._channel.close(None)
