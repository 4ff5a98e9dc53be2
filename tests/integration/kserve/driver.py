"""Drives sequences with an unmodified client. See test_clients.py.

Runs in the clients' own environment, which has nothing of this repository installed:

    python driver.py WAY TARGET MODEL FOLDER

FOLDER/plan.json: what to send, see `Call`; FOLDER/inputs.npy: by the plan's index, [1, 1, F]. At the marked call, it
prints "pause" and waits for a line. The outputs go to FOLDER/outputs.npy.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PATIENCE_S = 30.0


class Call(NamedTuple):
    """step: None if not sent. again: the call is sent twice, and both replies have to be the same."""

    sequence: int | str
    start: bool
    end: bool
    step: int | None
    again: bool
    pause: bool
    identifier: str


def parameters(call: Call) -> dict[str, Any]:
    return {} if call.step is None else {"step": call.step}


def words(call: Call) -> dict[str, Any]:
    """Returns tritonclient's arguments."""
    flags = {"sequence_id": call.sequence, "sequence_start": call.start, "sequence_end": call.end}
    return flags | {"request_id": call.identifier, "parameters": parameters(call)}


def tensor(values: Any) -> list[Any]:
    from tritonclient.grpc import InferInput

    made = InferInput("input", list(values.shape), "FP32")
    made.set_data_from_numpy(values)
    return [made]


def unavailable(error: Exception) -> bool:
    status = getattr(error, "status", None)
    said = f"{status() if callable(status) else ''} {error}"
    return any(word in said for word in ("UNAVAILABLE", "unavailable", "Stream removed", "no longer in valid state"))


class Sync:
    def __init__(self, target: str, model: str) -> None:
        from tritonclient.grpc import InferenceServerClient

        self._client, self._model = InferenceServerClient(target), model
        ready = self._client.is_server_live() and self._client.is_server_ready() and self._client.is_model_ready(model)
        client, told = self._client, {"ready": ready}
        told["metadata"] = client.get_model_metadata(model).inputs[0].name == "input"
        told["config"] = client.get_model_config(model).config.HasField("sequence_batching")
        told["statistics"] = client.get_inference_statistics(model).model_stats[0].name == model
        told["index"] = [one.name for one in client.get_model_repository_index().models] == [model]
        if not all(told.values()):
            raise RuntimeError(f"the server or its model is not described as expected: {told}")

    async def infer(self, call: Call, values: Any) -> Any:
        return self._client.infer(self._model, tensor(values), **words(call)).as_numpy("prediction")

    async def is_ready(self) -> bool:
        return bool(self._client.is_server_ready())

    async def renew(self) -> None:
        """Does nothing: unary calls need no renewal."""


class SyncStream(Sync):
    def __init__(self, target: str, model: str) -> None:
        super().__init__(target, model)
        self._answers: queue.Queue[Any] = queue.Queue()
        self._start()

    def _start(self) -> None:
        answers = self._answers = queue.Queue()
        self._client.start_stream(lambda result, error: answers.put((result, error)))

    async def infer(self, call: Call, values: Any) -> Any:
        self._client.async_stream_infer(self._model, tensor(values), **words(call))
        result, error = self._answers.get(timeout=PATIENCE_S)
        if error is not None:
            raise error
        return result.as_numpy("prediction")

    async def renew(self) -> None:
        self._client.stop_stream(cancel_requests=True)
        self._start()


class Aio:
    def __init__(self, target: str, model: str) -> None:
        from tritonclient.grpc.aio import InferenceServerClient

        self._client, self._model = InferenceServerClient(target), model

    async def infer(self, call: Call, values: Any) -> Any:
        return (await self._client.infer(self._model, tensor(values), **words(call))).as_numpy("prediction")

    async def is_ready(self) -> bool:
        return bool(await self._client.is_server_ready())

    async def renew(self) -> None:
        """Does nothing: unary calls need no renewal."""


class AioStream(Aio):
    def __init__(self, target: str, model: str) -> None:
        super().__init__(target, model)
        self._start()

    def _start(self) -> None:
        asked = self._asked = asyncio.Queue()  # type: ignore[var-annotated]

        async def asked_for() -> Any:
            while True:
                yield await asked.get()

        self._answers = self._client.stream_infer(asked_for())

    async def infer(self, call: Call, values: Any) -> Any:
        self._asked.put_nowait({"model_name": self._model, "inputs": tensor(values), **words(call)})
        async for result, error in self._answers:
            if error is not None:
                raise error
            return result.as_numpy("prediction")
        raise RuntimeError("the stream ended")

    async def renew(self) -> None:
        self._start()


class KServe:
    def __init__(self, target: str, model: str) -> None:
        from kserve import InferenceGRPCClient

        self._client, self._model = InferenceGRPCClient(target), model

    async def infer(self, call: Call, values: Any) -> Any:
        from kserve import InferInput, InferRequest

        made = InferInput("input", list(values.shape), "FP32")
        made.set_data_from_numpy(values, binary_data=True)
        flags = {"sequence_id": call.sequence, "sequence_start": call.start, "sequence_end": call.end}
        request = InferRequest(
            self._model, [made], request_id=call.identifier or None, parameters=flags | parameters(call)
        )
        return (await self._client.infer(request)).outputs[0].as_numpy()

    async def is_ready(self) -> bool:
        return bool(await self._client.is_server_ready())

    async def renew(self) -> None:
        """Does nothing: unary calls need no renewal."""


WAYS: dict[str, Any] = {
    "tritonclient": Sync,
    "tritonclient-stream": SyncStream,
    "tritonclient-aio": Aio,
    "tritonclient-aio-stream": AioStream,
    "kserve": KServe,
}


async def sent(client: Any, call: Call, values: Any) -> Any:
    """Sends it until the server answers: a call with `step` may be repeated freely."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await client.infer(call, values)
        except Exception as error:
            if not unavailable(error) or call.step is None or time.monotonic() > until:
                raise
        await asyncio.sleep(0.02)
        await client.renew()


async def connected(client: Any) -> None:
    """Waits until the client reaches the restarted server, since calls without `step` are not retried."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            if await client.is_ready():
                break
        except Exception as error:
            if not unavailable(error) or time.monotonic() > until:
                raise
        await asyncio.sleep(0.02)
    await client.renew()


async def main(way: str, target: str, model: str, folder: Path) -> None:
    calls = [Call(*one) for one in json.loads((folder / "plan.json").read_text())]
    inputs = np.load(folder / "inputs.npy")
    client, outputs = WAYS[way](target, model), []
    for call, values in zip(calls, inputs, strict=True):
        if call.pause:
            print("pause", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            await connected(client)
        outputs.append(await sent(client, call, values))
        if call.again:
            np.testing.assert_array_equal(await sent(client, call, values), outputs[-1], strict=True)
    np.save(folder / "outputs.npy", np.stack(outputs))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])))
