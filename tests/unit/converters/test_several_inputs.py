"""ONNX graphs with several inputs per time step: imported by name, proved with all inputs, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cellkeeper_service.converters.command import run_import
from cellkeeper_service.converters.imported import Imported
from cellkeeper_service.converters.onnx.model import import_onnx
from cellkeeper_service.converters.refusal import ImportRefused
from cellkeeper_service.engine.load import load_engine, offline
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.config import Missing
from cellkeeper_service.model.named_inputs import NamedInput, NamedInputs
from cellkeeper_service.model.write import write_bundle
from onnx import TensorProto, helper

from testing.two_inputs import VOCABULARY, random_steps, two_inputs_bundle, two_inputs_config, two_inputs_graph

from .small_graphs import node

IDS = {"ids": VOCABULARY}


def imported(graph: bytes, folder: Path, **options: Any) -> Imported:
    options = {"input": ("audio", "ids"), "vocabulary": IDS} | options
    return import_onnx(graph, folder / "m", report=lambda _: None, max_batch=4, **options)


def test_inputs_by_name_and_an_integer_state(tmp_path: Path) -> None:
    got = imported(two_inputs_graph(), tmp_path)
    assert (got.parity.exact, got.parity.relative, got.parity.relative_scaled) == (True, 0.0, 0.0)
    assert got.bundle.config.input == NamedInputs(
        (NamedInput("audio", "audio", (3,), "float32"), NamedInput("ids", "ids", (), "int64", VOCABULARY))
    )
    assert got.bundle.spec.step_bytes == 3 * 4 + 8
    inputs = random_steps(9)
    by_hand = offline(two_inputs_bundle(tmp_path / "two"), inputs)
    np.testing.assert_array_equal(offline(got.bundle.path, inputs)["prediction"], by_hand["prediction"], strict=True)


def test_the_order_of_the_names_is_that_of_the_bytes(tmp_path: Path) -> None:
    got = imported(two_inputs_graph(), tmp_path, input=["ids", "audio"])
    assert [part.name for part in got.bundle.spec.inputs] == ["ids", "audio"]


def test_a_batch_of_one_baked_in(tmp_path: Path) -> None:
    got = imported(two_inputs_graph(1), tmp_path)
    assert ("one session a call" in str(got), got.parity.exact) == (True, True)


def test_a_time_axis_of_one_is_taken_away_and_the_names_stay(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(two_inputs_graph())
    graph = model.graph
    graph.node.insert(0, helper.make_node("Squeeze", ["audio", "one_axis"], ["audio_now"]))
    graph.node.insert(0, helper.make_node("Squeeze", ["ids", "one_axis"], ["ids_now"]))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one_axis"))
    for made in graph.node[2:]:
        made.input[:] = [{"audio": "audio_now", "ids": "ids_now"}.get(name, name) for name in made.input]
    graph.node.append(helper.make_node("Unsqueeze", ["y", "one_axis"], ["y_timed"]))
    graph.input[0].CopyFrom(helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["B", 1, 3]))
    graph.input[1].CopyFrom(helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", 1]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("y_timed", TensorProto.FLOAT, ["B", 1, 4]))
    got = imported(model.SerializeToString(), tmp_path)
    config = got.bundle.config.input
    assert isinstance(config, NamedInputs)
    assert [(one.name, one.input) for one in config.inputs] == [("audio", "audio_step"), ("ids", "ids_step")]
    expected = offline(two_inputs_bundle(tmp_path / "two"), random_steps(9))["prediction"]
    np.testing.assert_array_equal(offline(got.bundle.path, random_steps(9))["prediction"], expected, strict=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"input": None},
            r"\['audio', 'ids'\] are neither states nor constants.*"
            r"For several inputs of each time step: --input audio,ids",
        ),
        ({"input": ["audio"]}, r"inputs \['ids'\]: neither states nor constants.*--input audio,ids"),
        ({"input": ["audio", "sound"]}, "input sound: not an input other than states and constants"),
        ({"input": ["audio", "audio"]}, "each once"),
        ({"vocabulary": 0}, "input ids: got ids int64.* and a vocabulary of 0; pass one for integers"),
        ({"vocabulary": {"ids": 5, "audio": 5}}, "input audio: got audio float32.* and a vocabulary of 5"),
        ({"vocabulary": 5}, "vocabulary: got 5 for several inputs, expected values by input name"),
        ({"vocabulary": {**IDS, "x": 3}}, r"vocabulary: got \['x'\], expected some of the inputs"),
        ({"input_shape": {"audio": (2,)}}, r"input_shape: got \[2\], expected the last axes of audio"),
        ({"missing": Missing("constant")}, "missing: got constant, expected reject"),
        ({"feature_names": ["a", "b"]}, "feature_names"),
        ({"feedback": [0, 1]}, "feedback: got .* expected an object with each of the inputs audio, ids"),
    ],
)
def test_what_is_not_certain_or_not_built_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ImportRefused, match=says):
        imported(two_inputs_graph(), tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_inputs_with_other_axes_are_refused(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(two_inputs_graph())
    model.graph.input[1].CopyFrom(helper.make_tensor_value_info("ids", TensorProto.INT64, [3]))
    with pytest.raises(ImportRefused, match=r"input ids: got ids int64\[3\]"):
        imported(model.SerializeToString(), tmp_path)


def of_x_and_gain(nodes: list[Any], lead: list[str]) -> bytes:
    """Returns a graph (x, gain [*lead, 2], h [B, 2]) -> (y, h_out)."""
    constants = {"last": np.array([-1]), "first": np.array([-(1 << 40)]), "axis": np.array([0])}

    def value(name: str, axes: list[str]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [*axes, 2])

    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", lead), value("gain", lead), value("h", ["B"])],
        [value("y", lead), value("h_out", ["B"])],
        [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


COUPLED = of_x_and_gain(
    [
        node("ReduceMean", "gain", "mean", axes=[0], keepdims=1),
        node("Add", "x mean", "y"),
        node("Add", "h x", "h_out"),
    ],
    ["B"],
)
AHEAD = of_x_and_gain(
    [
        node("Slice", "gain last first axis last", "turned"),
        node("Add", "x turned", "y"),
        node("Identity", "h", "h_out"),
    ],
    ["T", "B"],
)


@pytest.mark.parametrize(
    ("graph", "layout", "says"),
    [
        pytest.param(COUPLED, "step", "rows of a batch depend on each other", id="coupled"),
        pytest.param(AHEAD, "time_first", "looks ahead", id="ahead"),
    ],
)
def test_what_couples_or_looks_ahead_through_one_input_is_refused(
    tmp_path: Path, graph: bytes, layout: str, says: str
) -> None:
    with pytest.raises(ImportRefused, match=says):
        import_onnx(graph, tmp_path / "m", input=("x", "gain"), layout=layout, report=lambda _: None)
    config = two_inputs_config(
        layout=layout,
        inputs=[{"name": name, "shape": [2], "dtype": "float32"} for name in ("x", "gain")],
        states=[{"name": "h", "input": "h", "output": "h_out", "shape": [2]}],
        outputs=[{"name": "prediction", "output": "y", "shape": [2]}],
    )
    write_bundle(tmp_path / "by-hand", config, {}, graph=graph)
    with pytest.raises(StartError, match=says):
        load_engine(tmp_path / "by-hand")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.onnx"
    file.write_bytes(two_inputs_graph())
    words = ["onnx", str(file), str(tmp_path / "m"), "--input", "audio,ids", "--vocabulary", "ids=5"]
    run_import([*words, "--input-shape", "audio=3"])
    assert "takes audio float32[3] and ids int64[]" in capsys.readouterr().out
    with pytest.raises(ImportRefused, match="--vocabulary: ids: got 'many', expected a number"):
        run_import([*words[:-1], "ids=many"])


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["inputs"].pop(), r"inputs: got \['audio'\], expected at least two"),
        (lambda c: c["inputs"][1].update(name="audio"), "expected at least two with distinct names"),
        (lambda c: c["inputs"][1].pop("vocabulary"), r"inputs\[1\]: vocabulary: missing"),
        (lambda c: c["inputs"][0].update(vocabulary=3), r"inputs\[0\]: vocabulary: unknown key"),
        (lambda c: c["inputs"][0].update(dtype="bool"), r"inputs\[0\]: dtype: got 'bool', expected one of float32"),
        (
            lambda c: c["inputs"][0].update(shape=[300, 300]),
            "inputs: got '90001 values in a time step', expected at mo",
        ),
        (lambda c: c.update(input={"kind": "features", "name": "x", "size": 3}), "input: unknown key, remove it"),
        (
            lambda c: c.update(feedback=[0, 1, 2]),
            "feedback: got .* expected an object with each of the inputs audio, ids",
        ),
        (lambda c: c.update(feedback={"audio": [0, 1, 2]}), "expected an object with each of the inputs audio, ids"),
        (
            lambda c: c.update(feedback={"audio": [0, 1, 4], "ids": "known"}),
            "feedback: audio: got .* 3 indices below 4",
        ),
        (lambda c: c.update(feedback={"audio": [0, 1], "ids": "known"}), "feedback: audio: got .* 3 indices below 4"),
        (lambda c: c.update(feedback={"audio": [0, 1, 2], "ids": [3]}), 'feedback: ids: got .* expected "known"'),
        (
            lambda c: c.update(feedback={"audio": "known", "ids": "known"}),
            "expected at least one input that takes the prediction",
        ),
        (lambda c: c.update(feature_names=["a"]), "feature_names"),
    ],
)
def test_a_config_that_does_not_fit(tmp_path: Path, change: Change, says: str) -> None:
    config = two_inputs_config()
    config["inputs"] = [dict(one) for one in config["inputs"]]
    change(config)
    with pytest.raises(StartError, match=says):
        write_bundle(tmp_path / "m", config, {}, graph=two_inputs_graph())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda c: c["inputs"][0].update(dtype="float64"),
            r"input audio: got tensor\(float\), expected tensor\(double\)",
        ),
        (lambda c: c["inputs"][0].update(input="sound"), r"config.json declares \['h', 'ids', 'n', 'sound'\]"),
        (
            lambda c: c["inputs"][1].update(vocabulary=6),
            "a trial call of the graph failed .*indices element out of data bounds",
        ),
    ],
)
def test_a_config_that_the_graph_does_not_fit(tmp_path: Path, change: Change, says: str) -> None:
    config = two_inputs_config()
    config["inputs"] = [dict(one) for one in config["inputs"]]
    change(config)
    write_bundle(tmp_path / "m", config, {}, graph=two_inputs_graph())
    with pytest.raises(StartError, match=says):
        load_engine(tmp_path / "m")


def test_a_row_that_cannot_be_taken_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    engine = load_engine(two_inputs_bundle(tmp_path / "two"), max_batch=4)
    packed = read_bundle(tmp_path / "two").spec.input.pack(random_steps(3))  # type: ignore[attr-defined]
    rows = np.arange(3)
    engine.reserve(3)
    outputs = []
    for broken in (False, True):
        engine.write_states(rows, np.zeros((3, engine.spec.state_bytes), np.uint8))
        inputs = packed[None].copy()
        if broken:
            inputs["ids"][0, 1], inputs["audio"][0, 2, 1] = VOCABULARY, np.nan
        computed = engine.run(inputs, rows, rows, frozenset({"prediction"}))
        outputs.append(computed.outputs["prediction"][0, 0])
    assert computed.finite is not None
    assert computed.finite.tolist() == [True, False, False]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (random_steps(3) | {"ids": np.array([0, 5, 1])}, "ids: got 5 at time step 1, expected integers of 0 to 4"),
        (random_steps(3) | {"ids": np.array([0, 0.5, 1])}, "ids: got 0.5 at time step 1, expected integers of 0 to 4"),
        (random_steps(3) | {"ids": np.array([0, 1])}, r"inputs: got time steps \{'audio': 3, 'ids': 2\}, expected the"),
        (random_steps(3) | {"ids": np.zeros((3, 1), int)}, r"ids: got shape \[3, 1\], expected \[T\]"),
        (np.zeros((3, 2)), r"inputs: got \[\], expected \['audio', 'ids'\]"),
        ({"audio": np.zeros((2, 3))}, r"inputs: got \['audio'\], expected \['audio', 'ids'\]"),
    ],
)
def test_an_offline_run_names_what_does_not_fit(tmp_path: Path, inputs: Any, says: str) -> None:
    with pytest.raises(StartError, match=says):
        offline(two_inputs_bundle(tmp_path / "two"), inputs)
