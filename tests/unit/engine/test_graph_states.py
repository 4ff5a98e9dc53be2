"""States of ONNX graphs in a device's memory, bound to the calls.

onnxruntime's CPU provider replaces the device, so only the kernels differ. The bits are those of the engine on the
host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.domain.engine import EngineLost
from cellkeeper_service.engine import onnx_device
from cellkeeper_service.engine.graph_states import DeviceStates, GraphStates, HostStates
from cellkeeper_service.engine.load import load_engine, offline
from cellkeeper_service.engine.onnx_device import CPU_PROVIDER, HOST, GraphDevice, call, cpu_device
from cellkeeper_service.engine.ort import open_session
from cellkeeper_service.engine.user_graph import UserGraphEngine
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.config import GraphState
from cellkeeper_service.model.write import write_bundle
from onnx import helper
from onnxruntime import OrtValue

from testing.bundles import Array

from .test_user_graph import LAYOUTS, config_of, model_bytes, running_sum, write

DEVICE = GraphDevice("cuda:0 of tests", "cpu", 0, "of tests", CPU_PROVIDER, keeps_states=True)
STATES = (
    GraphState("first", "a", "a_after", (3,), 0),
    GraphState("second", "b", "b_after", (2, 4), 1),
    GraphState("third", "c", "c_after", (2, 2, 2), 3),
    GraphState("scalar", "d", "d_after", (), 0),
)
ROW_FLOATS = 3 + 8 + 8 + 1
HOLD = {"kind": "features", "name": "x", "size": 2, "missing": {"policy": "hold", "value": 3.0}}

both = pytest.mark.parametrize("kept", [HostStates(STATES), DeviceStates(STATES, DEVICE, "m")], ids=["host", "device"])


def random_states(rows: int, seed: int = 0) -> Array:
    values = np.random.default_rng(seed).standard_normal((rows, ROW_FLOATS)).astype("<f4")
    return values.view(np.uint8)


def values_of(results: dict[str, Any]) -> dict[str, Array]:
    return {name: value if isinstance(value, np.ndarray) else value.numpy() for name, value in results.items()}


def as_given(kept: GraphStates, taken: dict[str, Array]) -> list[Any]:
    """Returns the states as a graph would that returns its inputs unchanged."""
    arrays = [np.ascontiguousarray(taken[state.input]) for state in STATES]
    return arrays if isinstance(kept, HostStates) else [OrtValue.ortvalue_from_numpy(array) for array in arrays]


@both
def test_a_graph_gets_its_states_with_the_batch_where_it_has_it(kept: GraphStates) -> None:
    kept.reserve(6)
    states = random_states(3)
    rows = np.array([4, 0, 5], np.intp)
    kept.write(rows, states)
    np.testing.assert_array_equal(kept.read(rows[::-1]), states[::-1])
    taken = values_of(kept.take(rows, 5))
    floats = np.zeros((5, ROW_FLOATS), np.float32)
    floats[:3] = states.view("<f4")
    np.testing.assert_array_equal(taken["a"], floats[:, :3])
    np.testing.assert_array_equal(taken["b"], floats[:, 3:11].reshape(5, 2, 4).swapaxes(0, 1))
    np.testing.assert_array_equal(taken["c"], np.moveaxis(floats[:, 11:19].reshape(5, 2, 2, 2), 0, 3))
    np.testing.assert_array_equal(taken["d"], floats[:, 19])


@both
def test_padding_is_not_kept_and_other_rows_stay(kept: GraphStates) -> None:
    kept.reserve(6)
    every = np.arange(6, dtype=np.intp)
    before = random_states(6)
    kept.write(every, before)
    new = random_states(4, seed=1)
    kept.write(every[:4], new)
    taken = values_of(kept.take(every[:4], 4))
    kept.write(every[:4], before[:4])
    joined, _ = kept.join(as_given(kept, taken), 2)
    kept.put(np.array([5, 1], np.intp), joined)
    expected = before.copy()
    expected[[5, 1]] = new[:2]
    np.testing.assert_array_equal(kept.read(every), expected)


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 10, 18, 19])
def test_a_state_that_is_not_finite_is_told(kept: GraphStates, bad: float, place: int) -> None:
    kept.reserve(3)
    rows = np.arange(3, dtype=np.intp)
    states = random_states(3).view("<f4").copy()
    states[1, place] = bad
    states[2] = 3e38  # finite, but the sum is not
    kept.write(rows, states.view(np.uint8))
    joined, after = kept.join(as_given(kept, values_of(kept.take(rows, 3))), len(rows))
    kept.put(rows, joined)
    assert np.isfinite(after).all(axis=1).tolist() == [True, False, True]


@both
@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_that_is_not_there(kept: GraphStates, row: int) -> None:
    kept.reserve(3)
    with pytest.raises(IndexError):
        kept.take(np.array([0, row], np.intp), 2)


def test_scattering_copies_no_arena() -> None:
    """The memory bound as the result is the arena's own."""
    kept = DeviceStates(STATES, DEVICE, "m")
    kept.reserve(100)
    place = vars(kept)["_arena"].data_ptr()
    kept.write(np.arange(2, dtype=np.intp), random_states(2))
    assert vars(kept)["_arena"].data_ptr() == place


def test_an_arena_without_room_is_refused() -> None:
    kept = DeviceStates(STATES, DEVICE, "m")
    with pytest.raises(
        StartError,
        match=r"^arena_mib: 17592186044416 rows of states of m take \d+ MiB on cuda:0 of tests, and allocating "
        r"them failed \(.*Failed to allocate memory.*\); lower --arena-mib or free memory of the device$",
    ):
        kept.reserve(1 << 44)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_bits_are_those_of_the_host(layout: str, tmp_path: Path) -> None:
    bundle = write(tmp_path / "m", layout, input=HOLD)
    engines = [UserGraphEngine(bundle, 8, device=device) for device in (cpu_device(), DEVICE)]
    inputs = np.random.default_rng(4).standard_normal((6, 3, 2)).astype(np.float32)
    inputs[0, 1, 0] = inputs[3, 2, 1] = np.nan
    inputs[5, 0, 1] = np.inf
    read, written = np.array([9, 0, 4], np.intp), np.array([1, 0, 5], np.intp)
    assert [type(vars(engine)["_states"]) for engine in engines] == [HostStates, DeviceStates]
    found: list[list[Array]] = []
    for engine in engines:
        engine.settle(5, True, 0.0)  # two padding rows
        engine.reserve(10)
        engine.write_states(read, np.tile(np.frombuffer(engine.initial_state, np.uint8), (3, 1)))
        parts = [engine.run(part, read, written, frozenset(["prediction"])) for part in (inputs[:2], inputs[2:])]
        assert parts[0].finite is None
        assert parts[1].finite is not None
        assert parts[1].finite.tolist() == [False, True, True]
        found.append([*(part.outputs["prediction"] for part in parts), engine.read_states(written)])
    for host, device in zip(*found, strict=True):
        np.testing.assert_array_equal(host, device)


def test_a_server_s_choice_and_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_device, "cuda_device", lambda name: DEVICE)
    bundle = write(tmp_path / "m", input=HOLD)
    inputs = np.random.default_rng(5).standard_normal((20, 2)).astype(np.float32)
    expected = offline(load_engine(bundle, "cpu", 4), inputs)
    for device in ("cuda:0", "auto"):
        engine = load_engine(bundle, device, 4)
        assert (engine.device, engine.exact) == ("cuda:0 of tests", True)
        assert " of tests min_batch=1" in engine.numerics
        for name, values in offline(engine, inputs).items():
            np.testing.assert_array_equal(values, expected[name])


def test_a_state_may_be_an_output_as_well(tmp_path: Path) -> None:
    graph = model_bytes(
        [helper.make_node("Add", ["x", "total"], ["after"])],
        {"x": ["B", 2], "total": ["B", 2]},
        {"after": ["B", 2]},
    )
    config = config_of(
        "step",
        states=[{"name": "total", "input": "total", "output": "after", "shape": [2]}],
        outputs=[{"name": "prediction", "output": "after", "shape": [2]}],
        constants=[],
    )
    bundle = write_bundle(tmp_path / "m", config, {}, graph=graph)
    inputs = np.arange(6, dtype=np.float32).reshape(3, 2)
    for device in (cpu_device(), DEVICE):
        engine = UserGraphEngine(bundle, 8, device=device)
        engine.end_trial()
        np.testing.assert_array_equal(offline(engine, inputs)["prediction"], inputs.cumsum(axis=0))


class Failing:
    """A session whose calls fail."""

    def __init__(self, session: Any, text: str) -> None:
        self.io_binding, self._text = session.io_binding, text

    def run(self, *arguments: Any) -> None:
        raise RuntimeError(self._text)

    run_with_iobinding = run


@pytest.mark.parametrize(
    ("text", "device", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered", DEVICE, EngineLost),
        ("Gather: index out of bounds", DEVICE, RuntimeError),
        ("Failed to allocate memory for requested buffer", cpu_device(), RuntimeError),
    ],
)
def test_a_call_that_fails(text: str, device: GraphDevice, kind: type[Exception]) -> None:
    session = open_session(running_sum("step"), 1, "m", device)
    feeds = {"x": np.zeros((1, 2), np.float32), "total": np.zeros((1, 1, 2), np.float32), "gain": np.ones(2, "f4")}
    (output,) = call(session, device, feeds, {"y": HOST})
    assert output.shape == (1, 2)
    with pytest.raises(kind, match=text) as raised:
        call(Failing(session, text), device, feeds, {"y": HOST})
    assert type(raised.value) is kind
