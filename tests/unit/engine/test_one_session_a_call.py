"""Graphs that take one session per call, and states that are not float32.

In any batch and any chunk, the bits are those of onnxruntime in a loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cellkeeper_service.engine import onnx_device
from cellkeeper_service.engine.exactness import settle
from cellkeeper_service.engine.load import load_engine, offline
from cellkeeper_service.engine.onnx_device import CPU_PROVIDER, GraphDevice
from cellkeeper_service.engine.user_graph import UserGraphEngine
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle, read_bundle
from cellkeeper_service.model.write import write_bundle
from onnx import TensorProto, helper

from testing.bundles import Array

from .test_user_graph import model_bytes

STEPS, SESSIONS = 6, 3
FORMS: dict[tuple[str, str], list[Any]] = {  # by layout and batch: the shape of the graph's input
    ("step", "one"): [1, 3, 2],
    ("step", "none"): [3, 2],
    ("time_first", "one"): ["T", 1, 3, 2],
    ("batch_first", "one"): [1, "T", 3, 2],
    ("time_first", "none"): ["T", 3, 2],
}


def baked(layout: str, batch: str) -> bytes:
    """total' = total + each x in turn, y = the total after it; total [3, 2]."""
    shape = FORMS[layout, batch]
    nodes = [
        helper.make_node("Constant", [], ["minus_one"], value_int=-1),
        helper.make_node("Constant", [], ["shape"], value_ints=[3, 2]),
    ]
    if layout == "step":
        nodes += [helper.make_node("Add", ["x", "total"], ["y"]), helper.make_node("Identity", ["y"], ["last"])]
    else:
        axis = 1 if layout == "batch_first" else 0
        start = [1 if size == "T" else size for size in shape]
        nodes += [
            helper.make_node("Constant", [], ["start"], value_ints=start),
            helper.make_node("Constant", [], ["one"], value_ints=[1]),
            helper.make_node("Constant", [], ["many"], value_ints=[1 << 40]),
            helper.make_node("Reshape", ["total", "start"], ["before"]),
            helper.make_node("Concat", ["before", "x"], ["all"], axis=axis),
            helper.make_node("CumSum", ["all", f"axis{axis}"], ["sums"]),
            helper.make_node("Slice", ["sums", "one", "many", f"axis{axis}"], ["y"]),
            helper.make_node("Gather", ["y", "minus_one"], ["last"], axis=axis),
        ]
    nodes.append(helper.make_node("Reshape", ["last", "shape"], ["total_after"]))
    return model_bytes(nodes, {"x": shape, "total": [3, 2]}, {"y": shape, "total_after": [3, 2]})


def config(layout: str, batch: str, **overrides: Any) -> dict[str, Any]:
    return {
        "format": "cellkeeper-bundle/1",
        "name": "m",
        "cell": "onnx",
        "graph": "model.onnx",
        "batch": batch,
        "layout": layout,
        "input": {"kind": "features", "name": "x", "shape": [3, 2]},
        "states": [{"name": "total", "input": "total", "output": "total_after", "shape": [3, 2]}],
        "outputs": [{"name": "prediction", "output": "y", "shape": [3, 2]}],
        **overrides,
    }


def looped(model: bytes, form: list[Any], inputs: Array) -> Array:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    total, rows = np.zeros((3, 2), np.float32), []
    for x in inputs:
        shape = [1 if size == "T" else size for size in form]
        y, total = session.run(["y", "total_after"], {"x": x.reshape(shape), "total": total})
        rows.append(y.reshape(3, 2))
    return np.stack(rows)


@pytest.mark.parametrize(("layout", "batch"), FORMS)
def test_each_session_gets_the_bits_of_a_loop(layout: str, batch: str, tmp_path: Path) -> None:
    model = baked(layout, batch)
    engine = load_engine(write_bundle(tmp_path / "m", config(layout, batch), {}, graph=model), "cpu", 16)
    assert "one_session_a_call" in engine.numerics
    assert "min_batch" not in engine.numerics
    assert engine.exact
    assert engine.spec.input.shape == (3, 2)
    inputs = np.random.default_rng(1).standard_normal((STEPS, SESSIONS, 3, 2)).astype(np.float32)
    rows = np.arange(SESSIONS, dtype=np.intp)
    engine.reserve(SESSIONS)
    engine.write_states(rows, np.zeros((SESSIONS, 24), np.uint8))
    parts = [
        engine.run(inputs[start:end], rows, rows, frozenset(["prediction"])).outputs["prediction"]
        for start, end in ((0, 1), (1, 4), (4, STEPS))
    ]
    served = np.concatenate(parts)
    for number in range(SESSIONS):
        expected = looped(model, FORMS[layout, batch], inputs[:, number])
        np.testing.assert_array_equal(served[:, number], expected)


def test_on_a_device_its_states_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = GraphDevice("cuda:0 of tests", "cpu", 0, "of tests", CPU_PROVIDER, keeps_states=True)
    monkeypatch.setattr(onnx_device, "cuda_device", lambda name: device)
    bundle = write_bundle(tmp_path / "m", config("step", "one"), {}, graph=baked("step", "one"))
    inputs = np.random.default_rng(2).standard_normal((STEPS, 3, 2)).astype(np.float32)
    on_device = offline(load_engine(bundle, "cuda:0", 4), inputs)
    np.testing.assert_array_equal(on_device["prediction"], offline(tmp_path / "m", inputs)["prediction"])


def means(batch: str, size: int) -> bytes:
    """mean' = mean + the mean of x, y = mean'. x: [1, size] or [size]."""
    shape: list[Any] = [size] if batch == "none" else [{"free": "B", "one": 1}[batch], size]
    state = [*shape[:-1], 1]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["change"], axes=[len(shape) - 1]),
        helper.make_node("Add", ["mean", "change"], ["mean_after"]),
        helper.make_node("Identity", ["mean_after"], ["y"]),
    ]
    return model_bytes(nodes, {"x": shape, "mean": state}, {"y": state, "mean_after": state})


@pytest.mark.parametrize("size", [5, 9, 17])
@pytest.mark.parametrize(("batch", "max_batch"), [("one", 8), ("none", 8), ("free", 1)])
def test_sums_do_not_depend_on_where_values_are_in_memory(
    batch: str, max_batch: int, size: int, tmp_path: Path
) -> None:
    """In a batch or chunk of time steps of 5 values, only every fourth begins where 16 bytes do."""
    features = {"kind": "features", "name": "x", "size": size}
    shape = [1, 1] if batch == "one" else [1]
    state = {"name": "mean", "input": "mean", "output": "mean_after", "shape": shape}
    outputs = [{"name": "prediction", "output": "y", "shape": [1]}]
    declared = config("step", batch, input=features, states=[state], outputs=outputs)
    bundle = write_bundle(tmp_path / "m", declared, {}, graph=means(batch, size))
    engine = UserGraphEngine(bundle, max_batch)
    settle(engine)
    engine.end_trial()
    assert engine.exact, engine.tolerance
    assert engine.min_batch == 1


def scalars(several: bool) -> bytes:
    """total' = total + the sum of the time step's inputs, y = total'; no input has an axis."""
    names = ["x", "z"] if several else ["x"]
    nodes = [helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT) for name in names]
    nodes += [
        helper.make_node("Sum", ["total", *(f"{name}_float" for name in names)], ["total_after"]),
        helper.make_node("Identity", ["total_after"], ["y"]),
    ]
    shapes: dict[str, list[Any]] = {name: [] for name in [*names, "total"]}
    return model_bytes(nodes, shapes, {"y": [], "total_after": []}, x=TensorProto.INT64)


@pytest.mark.parametrize("several", [False, True])
def test_inputs_without_axes(several: bool, tmp_path: Path) -> None:
    declared = config(
        "step",
        "none",
        input={"kind": "tokens", "name": "x", "vocabulary": 9},
        states=[{"name": "total", "input": "total", "output": "total_after", "shape": []}],
        outputs=[{"name": "prediction", "output": "y", "shape": []}],
    )
    ids: Any = np.array([3, 0, 8])
    if several:
        del declared["input"]
        named = {"name": "id", "input": "x", "shape": [], "dtype": "int64", "vocabulary": 9}
        declared["inputs"] = [named, {"name": "z", "shape": [], "dtype": "float32"}]
        ids = {"id": ids, "z": np.zeros(3)}
    engine = load_engine(write_bundle(tmp_path / "m", declared, {}, graph=scalars(several)), "cpu", 4)
    assert offline(engine, ids)["prediction"].tolist() == [3.0, 3.0, 11.0]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"batch": "free"}, "a trial step of two sessions failed"),
        ({"batch": "two"}, "batch: got 'two', expected one of free, one, none"),
        ({"batch": "none", "layout": "batch_first"}, "layout: got 'batch_first', expected step or time_first"),
        ({"batch": "none"}, "a trial step of two sessions failed"),
        ({"input": {"kind": "features", "name": "x", "shape": [2, 3]}}, "a trial step of two sessions failed"),
        ({"input": {"kind": "features", "name": "x", "shape": [6]}}, r"shape: got \(6,\), expected two axes or more"),
        ({"input": {"kind": "features", "name": "x", "shape": [60000, 60000]}}, "two axes or more with up to 65536"),
        (
            {
                "states": [
                    {"name": "total", "input": "total", "output": "total_after", "shape": [3, 2], "batch_axis": 1}
                ]
            },
            "batch_axis: got 1, expected a whole number from 0 to 0",
        ),
        (
            {"outputs": [{"name": "prediction", "output": "y", "shape": [2, 3]}]},
            r"output prediction: got \[1, 3, 2\], expected \[1, 2, 3\]",
        ),
        (
            {"states": [{"name": "t", "input": "total", "output": "total_after", "shape": [3, 2], "dtype": "int64"}]},
            r"state t: got tensor\(float\), expected tensor\(int64\)",
        ),
        (
            {"states": [{"name": "t", "input": "total", "output": "total_after", "shape": [3, 2], "dtype": "int8"}]},
            "dtype: got 'int8', expected one of float32, float64, float16, int32, int64",
        ),
    ],
)
def test_a_wrong_declaration_is_found_at_load(overrides: dict[str, Any], words: str, tmp_path: Path) -> None:
    value = config("step", "one") | overrides
    with pytest.raises(StartError, match=words):
        load_engine(write_bundle(tmp_path / "m", value, {}, graph=baked("step", "one")), "cpu", 4)


def test_missing_values_of_a_window_are_held(tmp_path: Path) -> None:
    source = {"kind": "features", "name": "x", "shape": [3, 2], "missing": {"policy": "hold", "value": 2.0}}
    bundle = write_bundle(tmp_path / "m", config("step", "one", input=source), {}, graph=baked("step", "one"))
    x = np.ones((3, 3, 2), np.float32)
    x[0, 0], x[1, 2, 1], x[2] = np.nan, np.nan, np.nan
    after = offline(load_engine(bundle, "cpu", 4), x)
    assert after["state.last_input"].tolist() == [[1.0, 1.0]] * 3
    assert after["prediction"][-1].tolist() == [[4.0, 4.0], [3.0, 3.0], [3.0, 3.0]]


def test_missing_values_of_a_window_have_a_constant_each(tmp_path: Path) -> None:
    """Listed in C order."""
    missing = {"policy": "constant", "value": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    source = {"kind": "features", "name": "x", "shape": [3, 2], "missing": missing}
    bundle = write_bundle(tmp_path / "m", config("step", "one", input=source), {}, graph=baked("step", "one"))
    filled = np.arange(1, 7, dtype=np.float32).reshape(1, 3, 2)
    given = filled.copy()
    given[0, [0, 2, 1], [1, 0, 1]] = np.nan
    engine = load_engine(bundle, "cpu", 4)
    for name, values in offline(engine, given).items():
        np.testing.assert_array_equal(values, offline(engine, filled)[name])


def counted(*, of_the_first: bool = False) -> bytes:
    """Returns a graph with one state of each dtype; its output is x times the number of the time step.

    Inputs: x [B, 2], count int64 [B], ring int32 [2, B], sums float64 [B, 2], small float16 [B, 2]. of_the_first: uses
    the first session's number for all.
    """
    counts = ["count_after"]
    nodes = [
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("Add", ["count", "one"], ["count_after"]),
        helper.make_node("Cast", ["one"], ["small_one"], to=TensorProto.INT32),
        helper.make_node("Add", ["ring", "small_one"], ["ring_after"]),
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["sums", "wide"], ["sums_after"]),
        helper.make_node("Cast", ["x"], ["narrow"], to=TensorProto.FLOAT16),
        helper.make_node("Identity", ["narrow"], ["small_after"]),
    ]
    if of_the_first:
        nodes.append(helper.make_node("Gather", ["count_after", "axis0"], ["first"], axis=0))
        counts = ["first"]
    nodes += [
        helper.make_node("Cast", counts, ["number"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["number", "axis1"], ["column"]),
        helper.make_node("Mul", ["x", "column"], ["y"]),
    ]
    shapes: dict[str, list[Any]] = {"count": ["B"], "ring": [2, "B"], "sums": ["B", 2], "small": ["B", 2]}
    kinds = dict(
        zip(shapes, (TensorProto.INT64, TensorProto.INT32, TensorProto.DOUBLE, TensorProto.FLOAT16), strict=True)
    )
    kinds |= {f"{name}_after": kind for name, kind in kinds.items()}
    after = {f"{name}_after": shape for name, shape in shapes.items()}
    return model_bytes(nodes, {"x": ["B", 2], **shapes}, {"y": ["B", 2], **after}, **kinds)


def counted_bundle(folder: Path, graph: bytes, **tensors: Array) -> Bundle:
    states: list[dict[str, Any]] = [
        {"name": "count", "dtype": "int64", "shape": []},
        {"name": "ring", "dtype": "int32", "shape": [2], "batch_axis": 1},
        {"name": "sums", "dtype": "float64", "shape": [2]},
        {"name": "small", "dtype": "float16", "shape": [2]},
    ]
    value = config("step", "free") | {
        "input": {"kind": "features", "name": "x", "size": 2, "missing": {"policy": "hold", "value": 0.5}},
        "states": [{**state, "input": state["name"], "output": f"{state['name']}_after"} for state in states],
        "outputs": [{"name": "prediction", "output": "y", "shape": [2]}],
    }
    given = {f"initial.{name}": array for name, array in tensors.items()}
    return write_bundle(folder, value, given, graph=graph)


def test_states_of_other_dtypes(tmp_path: Path) -> None:
    start = {"count": np.array(2**40), "sums": np.array([1e-9, 0.0])}
    bundle = counted_bundle(tmp_path / "m", counted(), **start)
    engine = load_engine(bundle, "cpu", 8)
    assert engine.exact
    assert [state.dtype for state in engine.spec.states] == ["int64", "int32", "float64", "float16", "float32"]
    assert engine.spec.state_bytes == 8 + 8 + 16 + 4 + 8
    inputs = np.random.default_rng(3).standard_normal((5, 2)).astype(np.float32)
    after = offline(engine, inputs)
    assert after["state.count"] == 2**40 + 5  # float32 would not count this far
    assert after["state.ring"].tolist() == [5, 5]
    assert after["state.small"].tolist() == inputs[-1].astype(np.float16).tolist()
    np.testing.assert_array_equal(after["state.sums"], np.cumsum([start["sums"], *inputs.astype(float)], axis=0)[-1])
    again = read_bundle(bundle.path)
    assert again.config == bundle.config
    assert again.initial_state == engine.initial_state


def test_a_counter_that_is_the_first_sessions_is_found(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="rows of a batch depend on each other"):
        load_engine(counted_bundle(tmp_path / "m", counted(of_the_first=True)), "cpu", 8)


def test_an_initial_state_of_another_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"tensor initial.count: got dtype float32, expected int64"):
        counted_bundle(tmp_path / "m", counted(), count=np.array(1.0, np.float32))
    assert not (tmp_path / "m").exists()


def test_integer_states_on_a_device_come_and_go(tmp_path: Path) -> None:
    device = GraphDevice("cuda:0 of tests", "cpu", 0, "of tests", CPU_PROVIDER, keeps_states=True)
    bundle = counted_bundle(tmp_path / "m", counted())
    inputs = np.ones((3, 2), np.float32)
    engine = UserGraphEngine(bundle, 4, device=device)
    engine.end_trial()
    assert offline(engine, inputs)["state.count"] == 3
