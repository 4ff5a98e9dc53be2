"""ONNX graphs as people ship them: free windows, a batch of one, unusual states, further inputs of one number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cellkeeper_service.converters import Imported, import_onnx
from cellkeeper_service.converters.command import run_import
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.config import Features, GraphConfig
from onnx import TensorProto, helper

from examples.recipes.policy import policy
from verification.parity.onnx_cases import carried_graph, words_graph
from verification.parity.shipped_graphs import counter, detector, enhancer, model, state_alone

from .leftovers import refused
from .unstreamable_graphs import REFUSED

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}


def config_of(imported: Imported) -> GraphConfig:
    config = imported.bundle.config
    assert isinstance(config, GraphConfig)
    return config


def test_a_free_window_and_a_rate_are_asked_for_and_set(tmp_path: Path) -> None:
    graph = detector()
    refused(
        tmp_path,
        r"They may be constants: --constant sr=NUMBER. Inputs: .*sr int64\[\]",
        import_onnx,
        graph,
        tmp_path / "m",
    )
    refused(tmp_path, "They may be constants: --constant sr=NUMBER", import_onnx, graph, tmp_path / "m", input="input")
    constants = {"sr": np.array(16000)}
    words = r"input input: got input float32\[\?, \?\], expected a fixed number .*--input-shape 576"
    refused(tmp_path, words, import_onnx, graph, tmp_path / "m", constants=constants)
    imported = import_onnx(graph, tmp_path / "m", input_shape=[32], constants=constants, **QUICK)
    assert config_of(imported).input == Features(32)
    assert config_of(imported).batch == "free"
    assert imported.parity.exact
    slow = import_onnx(graph, tmp_path / "slow", input_shape=[32], constants={"sr": np.array(8000)}, **QUICK)
    window = np.random.default_rng(1).standard_normal((3, 32)).astype(np.float32)
    assert not np.array_equal(
        offline(imported.bundle.path, window)["prediction"], offline(slow.bundle.path, window)["prediction"]
    )


def test_several_inputs_for_each_time_step_are_told(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "z"], ["y"]), helper.make_node("Identity", ["h"], ["h_out"])]
    graph = model(nodes, {"x": ["n", 2], "z": ["n", 2], "h": ["n", 2]}, {"y": ["n", 2], "h_out": ["n", 2]}, {})
    for options in ({}, {"input": "x"}):
        words = "For several inputs of each time step: --input x,z"
        refused(tmp_path, words, import_onnx, graph, tmp_path / "m", **options)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([0], r"input_shape: got \[0\], expected whole numbers above 0"),
        ([], r"input_shape: got \[\], expected whole numbers above 0"),
        ([70_000], r"input_shape: got \[70000\], expected whole numbers above 0, at most 65536 values"),
        ([2, 3, 4], r"input_shape: got \[2, 3, 4\], expected the last axes of input float32\[\?, \?\]"),
        ([8, 4], r"input input: got .*\[batch, features\]|got .* 0 axes|fails"),
    ],
)
def test_an_input_shape_that_does_not_fit(shape: list[int], words: str, tmp_path: Path) -> None:
    options = {"input_shape": shape, "constants": {"sr": np.array(8000)}}
    refused(tmp_path, words, import_onnx, detector(), tmp_path / "m", **options, **QUICK)


def test_an_input_shape_beside_fixed_sizes(tmp_path: Path) -> None:
    words = r"input_shape: got \[2, 3\], expected the last axes of x float32\[n, 3, 2\]"
    refused(tmp_path, words, import_onnx, counter(), tmp_path / "m", input_shape=[2, 3], **QUICK)


def test_a_window_of_frames_is_one_time_step_with_states_of_other_dtypes(tmp_path: Path) -> None:
    initial = {"ticks": np.array(10)}
    imported = import_onnx(counter(), tmp_path / "m", input_shape=[3, 2], initial=initial, **QUICK)
    config = config_of(imported)
    assert isinstance(config.input, Features)
    assert (config.input.step_shape, config.input.size) == ((3, 2), 6)
    assert [(s.name, s.dtype, s.shape) for s in config.states] == [("ticks", "int64", ()), ("mean", "float64", (3, 2))]
    assert config.outputs[0].shape == (3, 2)
    x = np.random.default_rng(2).standard_normal((4, 3, 2)).astype(np.float32)
    after = offline(imported.bundle.path, x)
    assert after["state.ticks"] == 14
    mean = np.zeros((3, 2))
    for number, window in enumerate(x, 11):
        mean = mean + (window.astype(np.float64) - mean) / number
    np.testing.assert_array_equal(after["state.mean"], mean)
    for value, words in ((0.5, "initial state ticks: got float64"), (1 << 70, "initial state ticks")):
        given = {"initial": {"ticks": np.array(value)}, "input_shape": [3, 2]}
        refused(tmp_path, words, import_onnx, counter(), tmp_path / "n", **given, **QUICK)


@pytest.mark.parametrize("batch_axis", [0, 1])
@pytest.mark.parametrize("batch", ["n", 1])
def test_a_state_is_served_where_there_is_no_other_output(batch_axis: int, batch: int | str, tmp_path: Path) -> None:
    imported = import_onnx(state_alone(batch_axis, batch), tmp_path / "m", **QUICK)
    config = config_of(imported)
    assert config.batch == ("free" if batch == "n" else "one")
    x = np.array([[4.0, 8.0], [0.0, 0.0]], np.float32)
    came = offline(imported.bundle.path, x)
    np.testing.assert_array_equal(came["prediction"].reshape(2, 2), [[1.0, 2.0], [0.75, 1.5]])
    np.testing.assert_array_equal(came["state.h"].reshape(2), [0.75, 1.5])


def test_a_state_is_no_output_of_a_chunk(tmp_path: Path) -> None:
    graph = REFUSED["a state that is the chunk's mean"].model
    words = "output h_out: is a state, which the graph returns once per call"
    options = {"layout": "time_first", "outputs": ["y", "h_out"]}
    refused(tmp_path, words, import_onnx, graph, tmp_path / "m", **options, **QUICK)


def test_a_batch_of_one_is_served_one_session_a_call(tmp_path: Path) -> None:
    imported = import_onnx(policy(), tmp_path / "m", **QUICK)
    config = config_of(imported)
    assert (config.batch, config.layout) == ("one", "step")
    assert [state.shape for state in config.states] == [(1, 1, 6), (1, 1, 6)]
    assert config.outputs[0].shape == (2,)
    assert "one_session_a_call" in imported.parity.numerics
    assert imported.parity.exact
    assert imported.parity.difference == 0.0
    free = import_onnx(policy(free=True), tmp_path / "free", **QUICK)
    assert config_of(free).batch == "free"
    alone = import_onnx(policy(free=True), tmp_path / "alone", batch="one", **QUICK)
    assert config_of(alone).batch == "one"
    for axis, words in ((2, "with the batch axis 2: a batch is baked"), (3, "batch axis: got 3, expected 0 to 2")):
        options = {"batch": "one", "batch_axes": {"h_in": axis}, **QUICK}
        refused(tmp_path, f"state h_in: .*{words}", import_onnx, policy(), tmp_path / "n", **options)
    words = "state h_in: .*a batch is baked into the graph"
    refused(tmp_path, words, import_onnx, policy(), tmp_path / "n", batch="free", **QUICK)


@pytest.mark.parametrize(
    ("graph", "options", "layout"),
    [(carried_graph, {}, "batch_first"), (words_graph, {"vocabulary": 20}, "step")],
    ids=["sequences", "token ids"],
)
def test_a_graph_with_a_free_batch_may_be_served_one_session_a_call(
    graph: Callable[[], bytes], options: dict[str, Any], layout: str, tmp_path: Path
) -> None:
    imported = import_onnx(graph(), tmp_path / "m", batch="one", **options, **QUICK)
    assert (config_of(imported).layout, config_of(imported).batch) == (layout, "one")
    assert imported.parity.exact
    assert imported.parity.difference == 0.0


def test_states_of_five_axes(tmp_path: Path) -> None:
    imported = import_onnx(enhancer(), tmp_path / "m", input_shape=[3, 1, 2], **QUICK)
    config = config_of(imported)
    assert (config.batch, config.states[0].shape, config.outputs[0].shape) == ("one", (2, 1, 1, 3, 2), (3, 1, 2))


def test_outputs_of_any_rank(tmp_path: Path) -> None:
    """One number per time step, and an array of six axes."""
    nodes = [
        helper.make_node("Add", ["x", "h"], ["h_out"]),
        helper.make_node("ReduceSum", ["h_out", "axis"], ["sum"], keepdims=0),
        helper.make_node("Reshape", ["h_out", "shape"], ["wide"]),
    ]
    outputs = {"sum": ["n"], "wide": ["n", 1, 2, 1, 2, 1, 1], "h_out": ["n", 4]}
    constants = {"axis": [1], "shape": [-1, 1, 2, 1, 2, 1, 1]}
    graph = model(nodes, {"x": ["n", 4], "h": ["n", 4]}, outputs, constants)
    imported = import_onnx(graph, tmp_path / "m", **QUICK)
    assert [(o.name, o.shape) for o in config_of(imported).outputs] == [
        ("prediction", ()),
        ("wide", (1, 2, 1, 2, 1, 1)),
    ]
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    came = offline(imported.bundle.path, x)
    assert came["prediction"].tolist() == [6.0, 28.0]
    np.testing.assert_array_equal(came["wide"].reshape(2, 4), np.cumsum(x, axis=0))


def test_a_fixed_batch_with_a_free_window(tmp_path: Path) -> None:
    imported = import_onnx(detector(batch=1), tmp_path / "m", constants={"sr": np.array(8000)}, **QUICK)
    assert config_of(imported).batch == "one"
    words = r"input input: got .*\[3, 32\]: a batch is baked into the graph"
    refused(tmp_path, words, import_onnx, detector(batch=3), tmp_path / "n", constants={"sr": np.array(8000)}, **QUICK)


def test_rows_that_depend_on_each_other_are_served_one_session_a_call(tmp_path: Path) -> None:
    graph = REFUSED["mean over the batch"].model
    words = r"rows of a batch depend on each other.*--batch one"
    refused(tmp_path, words, import_onnx, graph, tmp_path / "m", **QUICK)
    imported = import_onnx(graph, tmp_path / "m", batch="one", **QUICK)
    x = np.ones((2, 2), np.float32)
    assert offline(imported.bundle.path, x)["prediction"].tolist() == [[0.0, 0.0], [0.0, 0.0]]


FORMS = {  # input, output, declared layout: the result
    "step": ([1, 2], None, ("step", "one")),
    "step without a batch": ([2], None, ("step", "none")),
    "one step of time": ([1, 1, 2], None, ("step", "one")),
    "time alone": (["t", 2], "time_first", ("time_first", "none")),
    "time first": (["t", 1, 2], "time_first", ("time_first", "one")),
    "batch first": ([1, "t", 2], "batch_first", ("batch_first", "one")),
    "a batch beside a state of one": (["n", 2], "step", ("step", "one")),
}


@pytest.mark.parametrize("form", FORMS)
def test_layouts_of_one_session(form: str, tmp_path: Path) -> None:
    """y = x + h, h_out = h: adds a constant."""
    shape, layout, expected = FORMS[form]
    nodes = [helper.make_node("Add", ["x", "h"], ["y"]), helper.make_node("Identity", ["h"], ["h_out"])]
    graph = model(nodes, {"x": shape, "h": [2]}, {"y": shape, "h_out": [2]}, {})
    options: dict[str, Any] = {"initial": {"h": np.array([3.0, 4.0], np.float32)}, **QUICK}
    if layout is not None:
        refused(tmp_path, "the time axis is ambiguous; pass layout", import_onnx, graph, tmp_path / "m")
        options["layout"] = layout
    imported = import_onnx(graph, tmp_path / "m", **options)
    config = config_of(imported)
    assert (config.layout, config.batch) == expected
    came = offline(imported.bundle.path, np.array([[1.0, 2.0], [5.0, 6.0]], np.float32))["prediction"]
    assert came.tolist() == [[4.0, 6.0], [8.0, 10.0]]


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ([4, 2], {}, r"input x: got x float32\[4, 2\]: a batch is baked into the graph.*or pass input_shape"),
        ([4, 1, 2], {"layout": "time_first"}, "a length is baked into the graph.*or pass input_shape"),
        ([1, 1, 1, 2], {}, "the time axis is ambiguous|axes before the time step's"),
        ([1, 2], {"layout": "batch_first"}, r"expected 2 axes before the time step's 1 for layout batch_first"),
        ([1, 2], {"batch": "two"}, "batch: got 'two', expected free, or one"),
    ],
)
def test_what_is_no_session(shape: list[int], options: dict[str, Any], words: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "h"], ["y"]), helper.make_node("Identity", ["h"], ["h_out"])]
    graph = model(nodes, {"x": shape, "h": [2]}, {"y": shape, "h_out": [2]}, {})
    refused(tmp_path, words, import_onnx, graph, tmp_path / "m", **options, **QUICK)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE], ids=["float16", "float64"])
@pytest.mark.parametrize("shape", [["n", 3], [1, "n", 3], [1, 3]], ids=["step", "one step of time", "one session"])
def test_a_graph_in_another_precision_takes_and_gives_float32(kind: int, shape: list[Any], tmp_path: Path) -> None:
    """y = x / 3 + h: inputs and outputs are cast, values inside are not."""
    nodes = [
        helper.make_node("Div", ["x", "three"], ["part"]),
        helper.make_node("Add", ["part", "h"], ["y"]),
        helper.make_node("Identity", ["h"], ["h_out"]),
    ]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    state = [shape[-2], 3]
    constants = {"three": np.array(3, dtype)}
    kinds = dict.fromkeys(("x", "y", "h", "h_out"), kind)
    graph = model(nodes, {"x": shape, "h": state}, {"y": shape, "h_out": state}, constants, **kinds)
    start = np.full(3 if state[0] == "n" else (1, 3), 0.25, dtype)
    imported = import_onnx(graph, tmp_path / "m", initial={"h": start}, **QUICK)
    assert config_of(imported).states[0].dtype == dtype.name
    assert imported.parity.difference == 0.0
    x = np.random.default_rng(4).standard_normal((2, 3)).astype(np.float32)
    came = offline(imported.bundle.path, x)["prediction"]
    assert came.dtype == np.float32
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    form = [1] * (len(shape) - 1) + [3]
    for row, values in zip(came, x, strict=True):
        (y,) = session.run(["y"], {"x": values.astype(dtype).reshape(form), "h": start.reshape(1, 3)})
        np.testing.assert_array_equal(row, y.reshape(3).astype(np.float32))


def test_states_of_a_dtype_that_the_wire_has_not(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Not", ["on"], ["on_out"])]
    graph = model(
        nodes,
        {"x": ["n", 2], "on": ["n"]},
        {"y": ["n", 2], "on_out": ["n"]},
        {},
        on=TensorProto.BOOL,
        on_out=TensorProto.BOOL,
    )
    words = r"state on: got on bool\[n\], expected one of float32, float64, float16, int32, int64; put a Cast"
    refused(tmp_path, words, import_onnx, graph, tmp_path / "m", **QUICK)


def switched() -> bytes:
    """Returns a graph: y = x + h, or x if `off` is true."""
    nodes = [
        helper.make_node("Add", ["x", "h"], ["h_out"]),
        helper.make_node("Where", ["off", "x", "h_out"], ["y"]),
    ]
    return model(
        nodes, {"x": ["n", 2], "h": ["n", 2], "off": []}, {"y": ["n", 2], "h_out": ["n", 2]}, {}, off=TensorProto.BOOL
    )


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "vad.onnx").write_bytes(detector())
    (tmp_path / "off.onnx").write_bytes(switched())
    (tmp_path / "means.onnx").write_bytes(counter())
    np.savez(tmp_path / "start.npz", ticks=np.array(5), mean=np.ones((3, 2)))
    runs = {
        "vad": "--input-shape 32 --constant sr=16000 --batch one",
        "off": "--constant off=true",
        "means": f"--input-shape 3,2 --initial {tmp_path / 'start.npz'}",
    }
    for name, words in runs.items():
        run_import(["onnx", str(tmp_path / f"{name}.onnx"), str(tmp_path / name), *words.split()])
    assert getattr(read_bundle(tmp_path / "vad").config, "batch", "") == "one"
    x = np.ones((2, 2), np.float32)
    assert offline(tmp_path / "off", x)["prediction"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert offline(tmp_path / "means", np.ones((1, 3, 2), np.float32))["state.ticks"] == 6
    (tmp_path / "broken.npz").write_bytes((tmp_path / "start.npz").read_bytes()[:100])
    np.savez(tmp_path / "objects.npz", ticks=np.array([{}], object), allow_pickle=True)
    np.savez_compressed(tmp_path / "bomb.npz", ticks=np.zeros(1 << 26))
    for name, text in (("broken", "not a file of"), ("objects", "not a file of"), ("bomb", "expected at most")):
        words = f"--input-shape 3,2 --initial {tmp_path / name}.npz"
        refused(tmp_path, text, run_import, ["onnx", str(tmp_path / "means.onnx"), str(tmp_path / "m"), *words.split()])
    words = "--input-shape: size: got 'x', expected a number"
    refused(tmp_path, words, run_import, ["onnx", "a", str(tmp_path / "m"), "--input-shape", "3,x"])
