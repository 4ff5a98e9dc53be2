"""Graphs as people ship them, on the real server.

Over steps, chunks, frames of many sessions, a retry and a kill, the bits are those of onnxruntime in a loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cellkeeper import AsyncClient, Client
from cellkeeper_service.converters import import_onnx

from examples.recipes.policy import policy
from testing.bundles import Array
from testing.forked_server import ForkedServer
from testing.wire_client import Chunk, Position, Replica, Result
from verification.parity.shipped_graphs import counter, detector, enhancer, state_alone

STEPS, SESSIONS = 12, 3


@dataclass(frozen=True)
class Shipped:
    """states: output names by input names. shape: of a time step. form: a time step as the graph takes it."""

    graph: bytes
    states: dict[str, str]
    output: str
    shape: tuple[int, ...]
    form: tuple[int, ...]
    input: str = "x"
    options: dict[str, Any] = field(default_factory=dict)

    def looped(self, inputs: Array) -> Array:
        session = onnxruntime.InferenceSession(self.graph, providers=["CPUExecutionProvider"])
        feeds: dict[str, Any] = dict(self.options.get("constants", {}))
        kinds = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(int64)": "i8"}
        for item in session.get_inputs():
            if item.name in self.states:
                feeds[item.name] = np.zeros([n if isinstance(n, int) else 1 for n in item.shape], kinds[item.type])
        rows = []
        for x in inputs:
            y, *after = session.run([self.output, *self.states.values()], {**feeds, self.input: x.reshape(self.form)})
            feeds |= zip(self.states, after, strict=True)
            rows.append(y.reshape(-1))
        return np.stack(rows)


SHIPPED = {
    "detector": Shipped(
        detector(),
        {"state": "stateN"},
        "output",
        (32,),
        (1, 32),
        "input",
        {"input_shape": [32], "constants": {"sr": np.array(16000)}},
    ),
    "policy": Shipped(policy(), {"h_in": "h_out", "c_in": "c_out"}, "actions", (5,), (1, 5), "obs"),
    "enhancer": Shipped(
        enhancer(), {"cache": "cache_out"}, "enh", (3, 1, 2), (1, 3, 1, 2), "mix", {"input_shape": [3, 1, 2]}
    ),
    "counter": Shipped(
        counter(),
        {"ticks": "ticks_out", "mean": "mean_out"},
        "y",
        (3, 2),
        (1, 3, 2),
        options={"input_shape": [3, 2], "feedback": [0, 1, 2, 3, 5, 4]},
    ),
    "state": Shipped(state_alone(1), {"h": "h_out"}, "h_out", (2,), (1, 2)),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    folder = tmp_path_factory.mktemp("shipped")
    for name, shipped in SHIPPED.items():
        import_onnx(shipped.graph, folder / name, report=str, max_batch=16, **shipped.options)
    bundles = [folder / name for name in SHIPPED]
    with ForkedServer(bundles, f"sqlite:{folder / 's.db'}", ["--max-batch=16"]) as server:
        yield server


def inputs_of(shipped: Shipped) -> Array:
    return np.random.default_rng(6).standard_normal((SESSIONS, STEPS, *shipped.shape)).astype(np.float32)


def test_served_bits_are_those_of_a_loop(server: ForkedServer) -> None:
    served: dict[tuple[str, int], list[Array]] = {}
    for start, stop in ((0, 1), (1, 2), (2, 7), (7, STEPS)):
        if start == 7:  # the sessions survive it
            server.kill()
            server.restart()
        with Client(server.target) as client:
            for name, shipped in SHIPPED.items():
                inputs = inputs_of(shipped)
                for number in range(SESSIONS):
                    session = client.session(f"{name} {number}", model=name)
                    assert session.model.input.shape == shipped.shape
                    out = session.step(inputs[number, start:stop])
                    served.setdefault((name, number), []).append(out.reshape(stop - start, -1))
    for name, shipped in SHIPPED.items():
        for number in range(SESSIONS):
            expected = shipped.looped(inputs_of(shipped)[number])
            np.testing.assert_array_equal(np.concatenate(served[name, number]), expected, err_msg=name)


@pytest.mark.parametrize("name", SHIPPED)
async def test_many_sessions_in_frames(name: str, server: ForkedServer) -> None:
    shipped = SHIPPED[name]
    inputs = inputs_of(shipped)
    async with AsyncClient(server.target) as client:
        sessions = [await client.open(f"frames {name} {number}", model=name) for number in range(SESSIONS)]
        came = [
            await asyncio.gather(*(session.step(inputs[number, step]) for number, session in enumerate(sessions)))
            for step in range(STEPS)
        ]
    for number in range(SESSIONS):
        outputs = np.stack([np.asarray(out[number]).reshape(-1) for out in came])
        np.testing.assert_array_equal(outputs, shipped.looped(inputs[number]))


def test_a_state_goes_out_and_comes_back_in_its_dtype(server: ForkedServer) -> None:
    shipped = SHIPPED["counter"]
    inputs = inputs_of(shipped)[0]
    with Client(server.target) as client:
        session = client.session("first", model="counter")
        session.step(inputs[:5])
        state = session.state()
        assert state["ticks"] == 5
        assert [state[name].dtype.name for name in ("ticks", "mean")] == ["int64", "float64"]
        other = client.session("second", model="counter")
        other.set_state(state)
        np.testing.assert_array_equal(other.step(inputs[5:]), session.step(inputs[5:]))
        assert other.state()["ticks"] == STEPS


def test_a_forecast_of_windows(server: ForkedServer) -> None:
    shipped = SHIPPED["counter"]
    inputs = inputs_of(shipped)[0][:3]
    with Client(server.target) as client:
        session = client.session("ahead", model="counter")
        session.step(inputs[:2])
        came = session.forecast(inputs[2], steps=2)
    for _ in range(2):
        window = shipped.looped(inputs)[-1][[0, 1, 2, 3, 5, 4]]  # fed back as the next input
        inputs = np.concatenate([inputs, window.reshape(1, 3, 2)])
    np.testing.assert_array_equal(came.reshape(3, 6), shipped.looped(inputs)[2:])


def test_get_model_says_that_it_is_one_session_a_call(server: ForkedServer) -> None:
    with Client(server.target) as client:
        models = {model.name: model for model in client.models()}
    assert {name for name, model in models.items() if "one_session_a_call" in model.numerics} == {"policy", "enhancer"}
    assert all(model.exact for model in models.values())


async def test_a_step_sent_again_counts_once(server: ForkedServer) -> None:
    x = np.ones((1, 3, 2), np.float32)
    with Client(server.target) as client:
        session = client.session("again", model="counter")
        session.step(x[0])
        generation = session.position.generation
    async with Replica(server.target) as replica:
        chunk = Chunk("counter", "again", x, Position.first(generation).after(x), 1)
        first, again = await replica.unary(chunk), await replica.unary(chunk)
        assert isinstance(first, Result)
        assert isinstance(again, Result)
        assert (first.outputs, again.replayed) == (again.outputs, True)
    with Client(server.target) as client:
        assert client.session("again", model="counter").state()["ticks"] == 2
