"""Drives sequences with an unmodified client. See test_clients.py.

Runs in the clients' own environment, which has nothing of this repository installed:

    python driver.py WAY TARGET MODEL FOLDER

FOLDER/plan.json: what to send, see `Call`; FOLDER/inputs.npy: by the plan's index, [1, 1, F]. The outputs go to
FOLDER/outputs.npy. It prints a line where its server has to do something: see `PAUSE`, `KILL` and `GONE`.
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
PAUSE = "pause"
"""No call is on its way; waits for a line before the next one."""
KILL = "kill"
"""The server may be killed now, in the middle of calls."""
GONE = "gone"
"""The server was killed; the call is repeated until another one answers."""
MUST_START = "must specify the START flag on the first request of the sequence"


class Call(NamedTuple):
    """One time step of a sequence.

    step: None if not sent. again: the call is sent twice, and both replies have to be the same. kill: the same, until
    the server is killed, and until one answers again. end: a call without START has to be refused afterwards.
    """

    sequence: int | str
    start: bool
    end: bool
    step: int | None
    again: bool
    pause: bool
    kill: bool
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

    async def close(self) -> None:
        self._client.close()


class SyncCallback(Sync):
    async def infer(self, call: Call, values: Any) -> Any:
        answers: queue.Queue[Any] = queue.Queue()
        self._client.async_infer(
            self._model, tensor(values), lambda result, error: answers.put((result, error)), **words(call)
        )
        result, error = answers.get(timeout=PATIENCE_S)
        if error is not None:
            raise error
        return result.as_numpy("prediction")


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

    async def close(self) -> None:
        await self._client.close()


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

    async def close(self) -> None:
        await self._client.close()


WAYS: dict[str, Any] = {
    "tritonclient": Sync,
    "tritonclient-callback": SyncCallback,
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


async def sent_until_killed(client: Any, call: Call, values: Any) -> None:
    """Sends it until the server does not answer any more, which is always in the middle of a call."""
    until = time.monotonic() + PATIENCE_S
    print(KILL, flush=True)
    try:
        while time.monotonic() < until:
            await client.infer(call, values)
    except Exception as error:
        if not unavailable(error):
            raise
        print(GONE, flush=True)
        await client.renew()
    else:
        raise TimeoutError("nobody has killed the server")


async def check_ended(client: Any, call: Call, values: Any) -> None:
    try:
        await client.infer(call._replace(step=None), values)
    except Exception as error:
        if MUST_START not in str(error):
            raise
    else:
        raise RuntimeError(f"sequence {call.sequence!r} goes on after its END")


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


async def run(client: Any, calls: list[Call], inputs: Any) -> list[Any]:
    """Returns the outputs of the calls."""
    outputs = []
    for call, values in zip(calls, inputs, strict=True):
        if call.pause:
            print(PAUSE, flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            await connected(client)
        outputs.append(await sent(client, call, values))
        if call.kill:
            await sent_until_killed(client, call, values)
        if call.again or call.kill:
            np.testing.assert_array_equal(await sent(client, call, values), outputs[-1], strict=True)
        if call.end:
            await check_ended(client, call, values)
    return outputs


async def main(way: str, target: str, model: str, folder: Path) -> None:
    calls = [Call(*one) for one in json.loads((folder / "plan.json").read_text())]
    client = WAYS[way](target, model)
    try:
        outputs = await run(client, calls, np.load(folder / "inputs.npy"))
    finally:
        await client.close()  # otherwise the threads of a stream keep the process alive
    np.save(folder / "outputs.npy", np.stack(outputs))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])))
