"""ONNX graphs as other servers take them: control inputs of one number a session, and outputs without a time axis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cellkeeper_service.converters import import_onnx
from cellkeeper_service.engine.load import offline
from onnx import TensorProto, helper, numpy_helper

from testing.bundles import Array

from .leftovers import refused
from .small_graphs import node

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
CONTROLS = {"start": np.array(0), "ready": np.array(True), "id": np.array(7)}
FIRST = np.array([3, -2], np.float32)
HELD = [  # h_out = x + h (1 - start) where ready, otherwise h
    node("Sub", "one start", "going"),
    node("Mul", "h going", "held"),
    node("Add", "held x", "sum"),
    node("Where", "ready sum h", "h_out"),
]
JOINED = [
    *HELD,
    node("Cast", "ready", "is_ready", to=FLOAT),
    node("Concat", "h_out is_ready", "both", axis=-1),
    node("Cast", "id", "number", to=FLOAT),
]


def graph(
    nodes: list[Any], inputs: Mapping[str, tuple[int, list[Any]]], outputs: Mapping[str, list[Any]], kind: int = FLOAT
) -> bytes:
    """Returns the model. inputs: dtype and dims by name. outputs: dims by name, of floats; the first is of `kind`."""
    constants = {
        "one": np.ones(1, np.float32),
        "table": np.eye(4, dtype=np.float32),
        "axis0": np.array([0]),
        "axis1": np.array([1]),
        "first": FIRST,
        "none": np.zeros(2, np.float32),
        "W": np.random.default_rng(1).uniform(-0.6, 0.6, (1, 6, 2)).astype(np.float32),
        "R": np.random.default_rng(2).uniform(-0.6, 0.6, (1, 6, 2)).astype(np.float32),
    }
    used = {name for item in nodes for name in item.input}
    kinds = [kind, *[FLOAT] * (len(outputs) - 1)]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [
            helper.make_tensor_value_info(name, each, dims)
            for (name, dims), each in zip(outputs.items(), kinds, strict=True)
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def controlled(batch: str | int, one: list[Any]) -> bytes:
    """Returns a graph with control inputs of shape `one`. Its output is [h, ready] times id."""
    inputs = {"x": (FLOAT, [batch, 2]), "start": (FLOAT, one), "ready": (BOOL, one), "id": (INT64, one)}
    joined = [*JOINED, node("Mul", "both number", "y")]
    return graph(joined, inputs | {"h": (FLOAT, [batch, 2])}, {"y": [batch, 3], "h_out": [batch, 2]})


@pytest.mark.parametrize("batch", [None, "one"])
@pytest.mark.parametrize(("free", "one"), [("B", ["B", 1]), ("B", ["rows", 1]), (1, [1, 1])])
def test_control_inputs_are_constants_of_every_session(
    free: str | int, one: list[Any], batch: str | None, tmp_path: Path
) -> None:
    imported = import_onnx(controlled(free, one), tmp_path / "m", constants=CONTROLS, batch=batch, **QUICK)
    assert imported.parity.difference == 0.0
    assert imported.parity.exact
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    served = offline(tmp_path / "m", x)["prediction"]
    np.testing.assert_array_equal(served, 7 * np.pad(np.cumsum(x, 0), ((0, 0), (0, 1)), constant_values=1))


def test_control_inputs_with_the_axis_of_the_batch(tmp_path: Path) -> None:
    """A number of shape [1, 1] for [B, 1] is that of every session."""
    constants = {name: np.asarray(value).reshape(1, 1) for name, value in CONTROLS.items()}
    imported = import_onnx(controlled("B", ["B", 1]), tmp_path / "m", constants=constants, **QUICK)
    assert imported.parity.difference == 0.0


@pytest.mark.parametrize("lead", [["B", "T"], ["T", "B"]], ids=["batch first", "time first"])
def test_control_inputs_of_a_graph_of_any_length(lead: list[Any], tmp_path: Path) -> None:
    order = [lead.index("T"), lead.index("B"), 2]
    nodes = [
        node("Sub", "one start", "going"),
        node("Mul", "h going", "held"),
        node("Unsqueeze", "held axis0", "before"),
        node("Transpose", "x", "sequence", perm=order),
        node("GRU", "sequence W R - - before", "each after", hidden_size=2),
        node("Squeeze", "each axis1", "output"),
        node("Transpose", "output", "y", perm=order),
        node("Squeeze", "after axis0", "h_out"),
    ]
    inputs = {"x": (FLOAT, [*lead, 2]), "start": (FLOAT, ["B", 1]), "h": (FLOAT, ["B", 2])}
    model = graph(nodes, inputs, {"y": [*lead, 2], "h_out": ["B", 2]})
    imported = import_onnx(model, tmp_path / "m", constants={"start": np.array(0)}, **QUICK)
    assert imported.parity.difference == 0.0
    assert imported.parity.exact


def test_a_refusal_suggests_constants_and_further_inputs_for_control_inputs(tmp_path: Path) -> None:
    words = (
        r"They may be constants: --constant start=NUMBER,ready=true,id=NUMBER. For several inputs of each time step: "
        r"--input x,start,id\. Inputs: x float32\[B, 2\], start float32\[B, 1\]"
    )
    refused(tmp_path, words, import_onnx, controlled("B", ["B", 1]), tmp_path / "m")


STARTED = [  # h_out = x + (the first state at a start, otherwise h)
    node("Where", "start first h", "held"),
    node("Add", "held x", "h_out"),
    node("Identity", "h_out", "y"),
]


def starting(nodes: list[Any]) -> bytes:
    inputs = {"x": (FLOAT, ["B", 2]), "start": (BOOL, ["B", 1]), "h": (FLOAT, ["B", 2])}
    return graph(nodes, inputs, {"y": ["B", 2], "h_out": ["B", 2]})


def test_a_graph_that_begins_with_states_of_its_own_needs_them(tmp_path: Path) -> None:
    model, start = starting(STARTED), {"start": np.array(False)}
    says = r"constant start: where it is 1, the graph starts a sequence.*--initial FILE\), each of \['h'\]"
    refused(tmp_path, says, import_onnx, model, tmp_path / "m", constants=start, **QUICK)
    import_onnx(model, tmp_path / "m", constants=start, initial={"h": FIRST}, **QUICK)
    x = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(offline(tmp_path / "m", x)["prediction"], [FIRST + 1, FIRST + 2])


SWITCHES = {
    "begins with zeros": [node("Where", "start none h", "held"), *STARTED[1:]],
    "stops everything": [
        node("Add", "h x", "sum"),
        node("Where", "start first sum", "h_out"),
        node("Identity", "h_out", "y"),
    ],
    "adds something": [node("Where", "start first none", "more"), node("Add", "more h", "held"), *STARTED[1:]],
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_other_switches_need_no_states(switch: str, tmp_path: Path) -> None:
    imported = import_onnx(starting(SWITCHES[switch]), tmp_path / "m", constants={"start": np.array(False)}, **QUICK)
    assert imported.parity.difference == 0.0


def test_more_than_one_number_for_each_session_is_no_constant(tmp_path: Path) -> None:
    model = controlled("B", ["B", 1]).replace(b"id", b"xx")  # any other name
    refused(tmp_path, r"constant x: got shape \[\]", import_onnx, model, tmp_path / "m", constants={"x": np.array(0)})


def words(lead: list[Any], ids: bool) -> bytes:
    """Returns a graph that takes [B, 1] or [1, B] and returns [B, 4]: how often each id came."""
    nodes = [
        node("Squeeze", f"x axis{lead.index(1)}", "now"),
        node("Gather", "table now", "row") if ids else node("Identity", "now", "row"),
        node("Add", "h row", "h_out"),
        node("Identity", "h_out", "y"),
    ]
    inputs = {"x": (INT64, lead) if ids else (FLOAT, [*lead, 4]), "h": (FLOAT, ["B", 4])}
    return graph(nodes, inputs, {"y": ["B", 4], "h_out": ["B", 4]})


@pytest.mark.parametrize("lead", [["B", 1], [1, "B"]], ids=["batch first", "time first"])
@pytest.mark.parametrize("ids", [True, False])
def test_an_output_may_lack_the_time_axis_of_one_step(lead: list[Any], ids: bool, tmp_path: Path) -> None:
    imported = import_onnx(words(lead, ids), tmp_path / "m", vocabulary=4 if ids else 0, **QUICK)
    assert imported.parity.difference == 0.0
    assert imported.parity.exact
    steps = np.array([2, 0, 2])
    x: Array = steps.astype(np.int32) if ids else np.eye(4, dtype=np.float32)[steps]
    np.testing.assert_array_equal(offline(tmp_path / "m", x)["prediction"], [[0, 0, 1, 0], [1, 0, 1, 0], [1, 0, 2, 0]])


def test_an_integer_output_is_refused_with_what_to_do(tmp_path: Path) -> None:
    nodes = [node("Add", "h x", "h_out"), node("Cast", "h_out", "y", to=INT64)]
    inputs = {"x": (FLOAT, ["B", 2]), "h": (FLOAT, ["B", 2])}
    model = graph(nodes, inputs, {"y": ["B", 2], "h_out": ["B", 2]}, INT64)
    refused(tmp_path, "output y: got int64, expected floats; .*put a Cast", import_onnx, model, tmp_path / "m")
