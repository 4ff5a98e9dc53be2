"""The service that a careful user writes in an afternoon.

Each request reads the state from Redis, runs PyTorch's nn.LSTM on it, and writes it back: one round trip for the read,
one for the write. It uses bytes instead of protobuf.

    python -m bench.servers.naive REDIS-URL FOLDER-OF-BUNDLES

Messages: naive_wire.py. It prints `listening on 127.0.0.1:PORT`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import redis.asyncio
import torch
from safetensors.torch import load_file

from bench.models import MODELS, Shape

from .naive_wire import MODEL_BYTES, SERVICE, SESSION_BYTES

CONNECTIONS = 64


class Network:
    """nn.LSTM with one linear output, with a bundle's weights."""

    def __init__(self, shape: Shape, bundle: Path) -> None:
        weights = load_file(bundle / "model.safetensors")
        self._shape = shape
        self._lstm = torch.nn.LSTM(shape.features, shape.hidden, shape.layers, batch_first=True).eval()
        self._lstm.load_state_dict({name[4:]: value for name, value in weights.items() if name.startswith("rnn.")})
        self._head = torch.nn.Linear(shape.hidden, 1).eval()
        self._head.load_state_dict({name[7:]: value for name, value in weights.items() if name.startswith("head.0.")})

    @torch.inference_mode()
    def step(self, inputs: bytes, state: bytes | None) -> tuple[bytes, bytes]:
        """Returns the outputs and the state after them. state: h and c [2, layers, 1, hidden]; None: zeros."""
        size = (2, self._shape.layers, 1, self._shape.hidden)
        before = (
            torch.zeros(size) if state is None else torch.from_numpy(np.frombuffer(state, "<f4").copy().reshape(size))
        )
        x = torch.from_numpy(np.frombuffer(inputs, "<f4").copy().reshape(1, -1, self._shape.features))
        hidden, (h, c) = self._lstm(x, (before[0], before[1]))
        return self._head(hidden[0]).numpy().tobytes(), torch.stack((h, c)).numpy().tobytes()


def step_handler(url: str, networks: dict[bytes, Network]) -> Callable[[bytes, object], Awaitable[bytes]]:
    pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=None)
    store = redis.asyncio.Redis(connection_pool=pool)

    async def step(request: bytes, context: object) -> bytes:
        model, key = request[:MODEL_BYTES], request[: MODEL_BYTES + SESSION_BYTES]
        state: Any = await store.get(key)
        outputs, after = networks[model].step(request[MODEL_BYTES + SESSION_BYTES :], state)
        await store.set(key, after)
        return outputs

    return step


async def main(url: str, folder: str) -> None:
    torch.set_num_threads(1)
    networks = {
        name.encode().ljust(MODEL_BYTES): Network(shape, Path(folder) / name)
        for name, shape in MODELS.items()
        if (Path(folder) / name).exists()
    }
    server = grpc.aio.server()
    handlers = {"Step": grpc.unary_unary_rpc_method_handler(step_handler(url, networks))}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
