"""Users' ONNX graphs: every layout gives numpy's values, and a wrong declaration is found at load."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.engine.load import load_engine, offline
from cellkeeper_service.engine.user_graph import UserGraphEngine
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.write import write_bundle
from onnx import TensorProto, helper, numpy_helper

from testing.bundles import Array
from tests.unit.engine.cases import start_rows

LAYOUTS = ("step", "time_first", "batch_first")
START = np.array([1.0, 2.0], np.float32)
GAIN = np.array([0.5, 0.25], np.float32)


def model_bytes(nodes: list[Any], inputs: dict[str, list[Any]], outputs: dict[str, list[Any]], **kinds: int) -> bytes:
    def values(shapes: dict[str, list[Any]]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), s) for name, s in shapes.items()
        ]

    axes = [numpy_helper.from_array(np.array([i]), f"axis{i}") for i in range(3)]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), axes)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def running_sum(layout: str) -> bytes:
    """total' = total + sum of x over time; y = total' at each time step (by CumSum) times gain. total: [1, B, 2]."""
    time = {"step": None, "time_first": 0, "batch_first": 1}[layout]
    nodes = []
    if time is None:
        nodes += [
            helper.make_node("Squeeze", ["total", "axis0"], ["flat"]),
            helper.make_node("Add", ["flat", "x"], ["sums"]),
            helper.make_node("Unsqueeze", ["sums", "axis0"], ["total_after"]),
        ]
        shape: list[Any] = ["B", 2]
    else:
        shape = ["T", "B", 2] if time == 0 else ["B", "T", 2]
        start = ["total"]
        if time == 1:
            nodes.append(helper.make_node("Transpose", ["total"], ["moved"], perm=[1, 0, 2]))
            start = ["moved"]
        nodes += [
            helper.make_node("CumSum", ["x", f"axis{time}"], ["running"]),
            helper.make_node("Add", ["running", *start], ["sums"]),
            helper.make_node("ReduceSum", ["x", f"axis{time}"], ["whole"], keepdims=0),
            helper.make_node("Unsqueeze", ["whole", "axis0"], ["raised"]),
            helper.make_node("Add", ["raised", "total"], ["total_after"]),
        ]
    nodes.append(helper.make_node("Mul", ["sums", "gain"], ["y"]))
    states: list[Any] = [1, "B", 2]
    return model_bytes(nodes, {"x": shape, "total": states, "gain": [2]}, {"y": shape, "total_after": states})


def config_of(layout_: str, **overrides: Any) -> dict[str, Any]:
    return {
        "format": "cellkeeper-bundle/1",
        "name": "sums",
        "cell": "onnx",
        "graph": "model.onnx",
        "layout": layout_,
        "input": {"kind": "features", "name": "x", "size": 2},
        "states": [{"name": "total", "input": "total", "output": "total_after", "shape": [1, 2], "batch_axis": 1}],
        "outputs": [{"name": "prediction", "output": "y", "shape": [2]}],
        "constants": ["gain"],
        **overrides,
    }


def write(folder: Path, layout: str = "step", graph: bytes | None = None, **overrides: Any) -> Bundle:
    tensors: dict[str, Array] = {"constant.gain": GAIN, "initial.total": START[None]}
    return write_bundle(
        folder, config_of(layout, **overrides), tensors, graph=graph if graph is not None else running_sum(layout)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout: str, tmp_path: Path) -> None:
    missing = {"kind": "features", "name": "x", "size": 2, "missing": {"policy": "hold", "value": 3.0}}
    engine = load_engine(write(tmp_path / "m", layout, input=missing), "cpu", 8)
    # a running sum over the chunk, added to the total, rounds differently for each chunking: the test at load must see
    # this
    assert engine.exact == (layout == "step")
    assert (engine.tolerance > 0) == (layout != "step")
    assert [state.name for state in engine.spec.states] == ["total", "last_input"]
    draw = np.random.default_rng(4)
    inputs = draw.integers(0, 9, (6, 5, 2)).astype(np.float32)
    inputs[0, 1, 0] = inputs[3, 2, 1] = inputs[4, 2, 1] = np.nan
    filled = inputs.copy()
    filled[0, 1, 0] = 3.0
    filled[3:5, 2, 1] = filled[2, 2, 1]
    expected = (filled.cumsum(axis=0) + START) * GAIN

    np.testing.assert_array_equal(offline(engine, inputs[:, 2])["prediction"], expected[:, 2])
    engine.reserve(10)
    read, write_rows = np.array([9, 0, 4, 2, 6], np.intp), np.array([1, 0, 5, 3, 7], np.intp)
    engine.write_states(read, np.tile(np.frombuffer(engine.initial_state, np.uint8), (5, 1)))
    wanted = frozenset(["prediction"])
    first = engine.run(inputs[:2], read, write_rows, wanted)
    second = engine.run(inputs[2:], write_rows, write_rows, wanted)
    assert first.finite is None
    came = np.concatenate([first.outputs["prediction"], second.outputs["prediction"]])
    np.testing.assert_array_equal(came, expected)
    state = engine.read_states(write_rows).view("<f4")
    np.testing.assert_array_equal(state[:, :2], filled.sum(axis=0) + START)
    np.testing.assert_array_equal(state[:, 2:], filled[-1])


def test_token_ids(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["ids"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "total"], ["after"]),
        helper.make_node("Identity", ["after"], ["y"]),
    ]
    graph = model_bytes(nodes, {"ids": ["B"], "total": ["B"]}, {"y": ["B"], "after": ["B"]}, ids=TensorProto.INT64)
    config = config_of(
        "step",
        input={"kind": "tokens", "name": "ids", "vocabulary": 50},
        states=[{"name": "total", "input": "total", "output": "after", "shape": [], "batch_axis": 0}],
        outputs=[{"name": "y", "output": "y", "shape": []}],
        constants=[],
    )
    engine = load_engine(write_bundle(tmp_path / "m", config, {}, graph=graph), "cpu", 4)
    came = offline(engine, np.array([3, 40, 7], np.int32))
    assert came["y"].tolist() == [3.0, 43.0, 50.0]
    assert came["state.total"] == 50.0


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"outputs": [{"name": "prediction", "output": "z", "shape": [2]}]}, "output z: declared"),
        (
            {"outputs": [{"name": "prediction", "output": "y", "shape": [3]}]},
            r"output prediction: got \[1, 2, 2\], expected \[1, 2, 3\] \(steps, sessions",
        ),
        ({"input": {"kind": "features", "name": "X", "size": 2}}, r"inputs: config.json declares \['X'"),
        ({"input": {"kind": "features", "name": "x", "size": 3}}, "a trial step of two sessions failed"),
        ({"input": {"kind": "tokens", "name": "x", "vocabulary": 3}}, r"input x: got tensor\(float\)"),
        ({"layout": "time_first"}, "a trial step of two sessions failed|output prediction"),
        (
            {
                "states": [
                    {"name": "total", "input": "total", "output": "total_after", "shape": [2, 1], "batch_axis": 1}
                ]
            },
            "a trial step of two sessions failed|shape",
        ),
        ({"graph_bytes": b"no graph"}, "not an ONNX model|refuses the graph"),
    ],
)
def test_a_wrong_declaration_is_named(overrides: dict[str, Any], text: str, tmp_path: Path) -> None:
    rest = dict(overrides)
    graph = rest.pop("graph_bytes", running_sum("step"))
    tensors: dict[str, Array] = {"constant.gain": GAIN}
    bundle = write_bundle(tmp_path / "m", config_of("step", **rest), tensors, graph=graph)
    with pytest.raises(StartError, match=text):
        load_engine(bundle, "cpu", 4)


def test_a_graph_that_reads_other_files_is_refused(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "secrets.bin"
    node = helper.make_node("Constant", [], ["w"], value=tensor)
    nodes = [
        node,
        helper.make_node("Add", ["x", "w"], ["y"]),
        helper.make_node("Add", ["total", "w"], ["total_after"]),
        helper.make_node("Mul", ["gain", "w"], ["unused"]),
    ]
    graph = model_bytes(
        nodes, {"x": ["B", 2], "total": [1, "B", 2], "gain": [2]}, {"y": ["B", 2], "total_after": [1, "B", 2]}
    )
    with pytest.raises(StartError, match="weights in other files"):
        load_engine(write(tmp_path / "m", graph=graph), "cpu", 4)


def test_a_load_that_fails_leaves_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails: a server that reloads its folders goes on, with the thread and the session that it watches."""

    def fail(*_: Any) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("cellkeeper_service.engine.user_graph.independence", fail)
    before = set(threading.enumerate())  # engines of other tests have such threads
    with pytest.raises(RuntimeError, match="unforeseen"):
        load_engine(write(tmp_path / "m"), "cpu", 4)
    assert "graph-trial" not in [thread.name for thread in set(threading.enumerate()) - before]


def test_an_output_must_have_a_value_for_each_time_step(tmp_path: Path) -> None:
    """Every other step, it looks right in a call of one step, so only longer chunks can show it."""
    nodes = [
        helper.make_node("Slice", ["x", "axis0", "end", "axis0", "axis2"], ["y"]),
        helper.make_node("ReduceSum", ["x", "axis0"], ["whole"], keepdims=1),
        helper.make_node("Add", ["whole", "total"], ["total_after"]),
    ]
    nodes.insert(0, helper.make_node("Constant", [], ["end"], value=numpy_helper.from_array(np.array([1 << 40]))))
    graph = model_bytes(
        nodes, {"x": ["T", "B", 2], "total": [1, "B", 2]}, {"y": ["H", "B", 2], "total_after": [1, "B", 2]}
    )
    bundle = write_bundle(tmp_path / "m", config_of("time_first", constants=[]), {}, graph=graph)
    with pytest.raises(StartError, match=r"output prediction: got \[2, 4, 2\], expected \[4, 4, 2\] .*check what"):
        load_engine(bundle, "cpu", 4)


def test_a_state_must_come_back_in_its_shape(tmp_path: Path) -> None:
    """With as many values in another order, or with values that would be repeated, it would be another state."""
    wrong: dict[str, tuple[Any, list[Any], list[Any]]] = {
        "free": (helper.make_node("Transpose", ["total"], ["after"], perm=[0, 2, 1]), ["B", 2, 3], ["B", 3, 2]),
        "none": (helper.make_node("ReduceSum", ["total", "axis0"], ["after"], keepdims=1), [2, 3], [1, 3]),
    }
    for batch, (node, before, after) in wrong.items():
        x = [*before[:-2], 2]
        nodes = [helper.make_node("Identity", ["x"], ["y"]), node]
        graph = model_bytes(nodes, {"x": x, "total": before}, {"y": x, "after": after})
        state = {"name": "total", "input": "total", "output": "after", "shape": [2, 3]}
        config = config_of("step", states=[state], constants=[], batch=batch)
        bundle = write_bundle(tmp_path / batch, config, {}, graph=graph)
        with pytest.raises(StartError, match=r"state total: got \[(2, 3, 2|1, 3)\], expected \[(2, )?2, 3\]"):
            load_engine(bundle, "cpu", 4)


def test_the_time_between_calls_does_not_count(tmp_path: Path) -> None:
    """Otherwise a pause of a trial, as a reload makes them, would stop the next call."""
    engine = UserGraphEngine(write(tmp_path / "m"), 4)
    try:
        trial = vars(engine)["_trial"]
        assert vars(trial)["_stop_at"] == float("inf")
        with pytest.raises(ValueError, match="Required inputs"):
            trial.run(["y"], {})
        assert vars(trial)["_stop_at"] == float("inf")
    finally:
        engine.end_trial()


@pytest.mark.parametrize("batch", ["free", "one"])
def test_values_that_a_graph_s_own_dtypes_cannot_hold(batch: str, tmp_path: Path) -> None:
    """70,000 is no float16 and 1e300 no float32. They become infinite without a warning for each call."""
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Constant", [], ["gain"], value=numpy_helper.from_array(np.array(1e298))),
        helper.make_node("Mul", ["wide", "gain"], ["y"]),
        helper.make_node("Identity", ["total"], ["total_after"]),
    ]
    lead = "B" if batch == "free" else 1
    graph = model_bytes(
        nodes,
        {"x": [lead, 2], "total": [lead, 2]},
        {"y": [lead, 2], "total_after": [lead, 2]},
        x=TensorProto.FLOAT16,
        y=TensorProto.DOUBLE,
    )
    shape = [2] if batch == "free" else [1, 2]
    state = {"name": "total", "input": "total", "output": "total_after", "shape": shape}
    bundle = write_bundle(tmp_path / "m", config_of("step", states=[state], constants=[], batch=batch), {}, graph=graph)
    engine = load_engine(bundle, "cpu", 4)
    rows = np.arange(4, dtype=np.intp)
    engine.reserve(4)
    start_rows(engine, rows)
    inputs = np.zeros((1, 4, 2), np.float32)
    inputs[0, 1], inputs[0, 2] = 70_000, 100
    computed = engine.run(inputs, rows, rows, frozenset(["prediction"]))
    assert computed.finite is not None
    assert computed.finite.tolist() == [True, False, False, True]


def test_a_call_that_fails_changes_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is repeated, with fewer sessions, from the same rows."""
    missing = {"kind": "features", "name": "x", "size": 2, "missing": {"policy": "hold", "value": 3.0}}
    engine = load_engine(write(tmp_path / "m", input=missing), "cpu", 2)
    engine.reserve(2)
    rows = np.arange(2, dtype=np.intp)
    start_rows(engine, rows)
    before = engine.read_states(rows).copy()

    def no_memory(*values: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("cellkeeper_service.engine.user_graph.finite_rows", no_memory)
        with pytest.raises(MemoryError):
            engine.run(np.ones((1, 2, 2), np.float32), rows, rows, frozenset(["prediction"]))
    np.testing.assert_array_equal(engine.read_states(rows), before)
