"""Triton's own asyncio client: one channel, with requests one by one or over its stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient

from bench.load import Load
from bench.loops import Send

from .samples import samples


class TritonClient:
    def __init__(self, target: str, streamed: bool) -> None:
        self._client: Any = InferenceServerClient(target)
        self._streamed = streamed
        self._sequences = count(1_000_000 if streamed else 1)
        self._stream: Stream | None = None

    async def prepare(self, load: Load) -> Send:
        if load.kind != "client":
            raise ValueError(f"kind: got {load.kind!r}")
        inputs, outputs = _inputs(load), [InferRequestedOutput("Y")]
        sequences = [next(self._sequences) for _ in range(load.flows)]

        async def send(flow: int, start: bool = False) -> int:
            words = {"sequence_id": sequences[flow], "sequence_start": start}
            if not self._streamed:
                result = await self._client.infer(load.model, inputs, outputs=outputs, **words)
            else:
                result = await self._live_stream().infer(load.model, inputs, outputs, words)
            result.as_numpy("Y")
            return load.steps

        for flow in range(load.flows):  # one by one: many at once over the stream crashed the server
            await send(flow, start=True)
        return send

    async def close(self) -> None:
        await self._client.close()

    def _live_stream(self) -> Stream:
        """Returns the stream, or a new one if it has ended, so that a failure affects only the load it occurred in."""
        if self._stream is None or self._stream.ended:
            self._stream = Stream(self._client)
        return self._stream


class Stream:
    """ModelStreamInfer, with answers matched to requests by id."""

    def __init__(self, client: Any) -> None:
        self._requests: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._numbers = count(1)
        self._reader = asyncio.ensure_future(self._read(client.stream_infer(self._sent())))

    @property
    def ended(self) -> bool:
        return self._reader.done()

    async def infer(self, model: str, inputs: list[Any], outputs: list[Any], words: dict[str, Any]) -> Any:
        number = str(next(self._numbers))
        done = self._waiting[number] = asyncio.get_running_loop().create_future()
        named = {"model_name": model, "inputs": inputs, "outputs": outputs, "request_id": number}
        self._requests.put_nowait(named | words)
        return await done

    async def _sent(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield await self._requests.get()

    async def _read(self, answers: AsyncIterator[tuple[Any, Any]]) -> None:
        why: Exception | None = None
        try:
            async for result, error in answers:
                if error is not None:
                    raise error
                self._waiting.pop(result.get_response().id).set_result(result)
        except Exception as error:  # noqa: BLE001 - every waiting request is told
            why = error
        for done in self._waiting.values():
            done.set_exception(RuntimeError(f"Triton's stream ended: {why!r}"))


def _inputs(load: Load) -> list[Any]:
    values = samples(load.model, 1, load.steps)
    tensor = InferInput("X", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    return [tensor]
