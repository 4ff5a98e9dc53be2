"""ONNX graphs: declared by name, guessed if that is certain, otherwise asked for; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cellkeeper_service.converters import Missing, import_onnx
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.config import GraphConfig
from onnx import TensorProto, helper, numpy_helper

from examples.recipes.exporting import exported
from testing.bundles import Array
from verification.parity.case import Case
from verification.parity.onnx_cases import (
    HANDMADE_CONSTANTS,
    Carried,
    carried_graph,
    handmade_graph,
    onnx_cases,
    words_graph,
)

from . import small_graphs
from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
CASES = onnx_cases()


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_same_bits_as_onnxruntime(case: Case, tmp_path: Path) -> None:
    imported = case.run(tmp_path / "m", 8)
    assert imported.parity.difference == 0.0
    assert imported.parity.exact


def config_of(data: bytes, folder: Path, **options: Any) -> GraphConfig:
    config = import_onnx(data, folder, **options, **QUICK).bundle.config
    assert isinstance(config, GraphConfig)
    return config


def test_what_is_certain_is_guessed(tmp_path: Path) -> None:
    config = config_of(carried_graph(), tmp_path / "a")
    assert (config.layout, config.input_name) == ("batch_first", "x")
    assert [(s.input, s.output, s.shape, s.batch_axis) for s in config.states] == [
        ("h0", "hn", (2, 24), 1),
        ("c0", "cn", (2, 24), 1),
    ]
    assert [(o.name, o.shape) for o in config.outputs] == [("prediction", (2,))]
    words = config_of(words_graph(), tmp_path / "b", vocabulary=20)
    assert words.layout == "step"  # its time axis of length one is gone
    made = config_of(handmade_graph(), tmp_path / "c", constants=HANDMADE_CONSTANTS)
    assert [(s.input, s.output, s.shape, s.batch_axis) for s in made.states] == [
        ("state", "stateN", (2, 6), 1),
        ("peak", "peak_out", (6,), 0),
    ]
    assert made.constants == ("gain",)  # the integer became part of the graph


def test_a_model_of_a_triton_repository(tmp_path: Path) -> None:
    """Its config.pbtxt may have initial states, which would be zeros without a word."""
    version = tmp_path / "pump" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text('name: "pump"')
    (version / "model.onnx").write_bytes(carried_graph())
    words = "a model of a Triton repository, expected a file; give the one of a version: 1/model.onnx"
    refused(tmp_path, words, import_onnx, version.parent, tmp_path / "m")
    lines: list[str] = []
    import_onnx(version / "model.onnx", tmp_path / "m", max_batch=8, report=lines.append)
    assert lines[0].startswith(f"{version.parent / 'config.pbtxt'} is not read: initial states")
    initial = {"h0": np.ones((2, 24), np.float32), "c0": np.zeros((2, 24), np.float32)}
    lines.clear()
    import_onnx(version / "model.onnx", tmp_path / "n", initial=initial, max_batch=8, report=lines.append)
    assert not any("config.pbtxt" in line for line in lines)


def test_the_same_said_in_full(tmp_path: Path) -> None:
    states = {"peak": "peak_out", "state": "stateN"}  # not in the graph's order
    axes = {"state": 1, "peak": 0}
    config = config_of(
        handmade_graph(),
        tmp_path / "m",
        input="x",
        layout="step",
        states=states,
        batch_axes=axes,
        outputs=["y"],
        constants=HANDMADE_CONSTANTS,
    )
    assert [state.name for state in config.states] == ["peak", "state"]


def test_states_start_where_they_are_told(tmp_path: Path) -> None:
    initial = {"peak": np.full(6, 9.0, np.float32)}
    config_of(handmade_graph(), tmp_path / "m", constants=HANDMADE_CONSTANTS, initial=initial)
    after = offline(tmp_path / "m", np.zeros((1, 2), np.float32))
    assert after["state.peak"].tolist() == [9.0] * 6


def test_each_feature_has_its_own_value_for_missing_ones(tmp_path: Path) -> None:
    options = {"constants": HANDMADE_CONSTANTS, **QUICK}
    import_onnx(handmade_graph(), tmp_path / "m", missing=Missing("constant", (1.5, -2.0)), **options)
    given = np.array([[np.nan, 3.0], [4.0, np.nan]], np.float32)
    filled = np.array([[1.5, 3.0], [4.0, -2.0]], np.float32)
    for name, values in offline(tmp_path / "m", given).items():
        np.testing.assert_array_equal(values, offline(tmp_path / "m", filled)[name])
    words = r"missing: value: got \(1.0, 2.0, 3.0\), expected a list of 2 finite float32 numbers"
    three = Missing("constant", (1.0, 2.0, 3.0))
    refused(tmp_path, words, import_onnx, handmade_graph(), tmp_path / "n", missing=three, **options)


def test_token_ids_are_never_missing(tmp_path: Path) -> None:
    words = "missing: got hold, expected reject: token ids are never missing"
    refused(tmp_path, words, import_onnx, words_graph(), tmp_path / "m", vocabulary=20, missing=Missing("hold"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"input: \['x', 'gain', 'rate'\] are neither states nor constants, expected exactly one; pass"),
        ({"input": "x"}, r"inputs \['gain', 'rate'\]: neither states nor constants"),
        ({"input": "z", "constants": HANDMADE_CONSTANTS}, "input z: not an input other than states and constants"),
        ({"states": {}}, "states: got none"),
        ({"states": {"hidden": "stateN"}}, "state hidden: no such input"),
        ({"states": {"state": "after"}}, "state state: after: no such output"),
        (
            {"states": {"state": "peak_out"}},
            r"state state: goes in as .*\[2, batch, 6\] and comes out as .*\[batch, 6\]",
        ),
        ({"states": {"peak": "y", "gain": "y"}}, "goes in as|expected a different output"),
        ({"batch_axes": {"state": 0}}, "with the batch axis 0: a batch is baked into the graph"),
        ({"batch_axes": {"state": 3}}, "batch axis: got 3, expected 0 to 2"),
        ({"batch_axes": {"x": 0}}, "batch axis of x: not a state"),
        ({"outputs": ["z"]}, "output z: no such output"),
        ({"outputs": []}, r"outputs: got \[\], expected one or more"),
        ({"layout": "time_first"}, r"input x: got .*expected \[batch, features\]"),
        ({"layout": "columns"}, "layout: got 'columns'"),
        ({"vocabulary": 5}, "got float32 and a vocabulary of 5"),
        ({"constants": {"rate": np.array(16000), "gain": np.ones(5)}}, r"constant gain: got shape \[5\]"),
        ({"constants": {"rate": np.array(0.5), "gain": np.ones(6)}}, r"constant rate: got shape \[\]"),
        (
            {"constants": {"rate": np.array(16000), "gain": np.ma.masked_greater(np.arange(6.0), 4)}},
            r"constant gain: got shape \[6\] masked",
        ),
        ({"initial": {"peak": np.ma.masked_greater(np.arange(6.0), 4)}}, "peak.*NaN or infinity"),
        ({"constants": {"rates": np.array(1)}}, "constant rates: no such input"),
        ({"initial": {"peak": np.zeros(5)}}, r"initial state peak: got float64 \[5\], expected"),
    ],
)
def test_a_declaration_that_is_wrong_or_short(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    given = options if not options or "input" in options else {"constants": HANDMADE_CONSTANTS, **options}
    refused(tmp_path, words, import_onnx, handmade_graph(), tmp_path / "m", **given, **QUICK)


def changed(data: bytes, change: Callable[[Any], None]) -> bytes:
    model = onnx.load_model_from_string(data)
    change(model.graph)
    return bytes(model.SerializeToString())


def rename(graph: Any) -> None:
    """Renames inputs and outputs to meaningless names."""
    names = {"h0": "a", "c0": "b", "hn": "p", "cn": "q"}
    for item in (*graph.input, *graph.output):
        item.name = names.get(item.name, item.name)
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]


def free_axes(graph: Any) -> None:
    for dim in graph.input[1].type.tensor_type.shape.dim:
        dim.dim_param = "any"


def test_what_is_not_certain_is_asked_for(tmp_path: Path) -> None:
    words = changed(carried_graph(), rename)
    refused(tmp_path, r"pass states as INPUT=OUTPUT pairs. Inputs: x float32", import_onnx, words, tmp_path / "m")
    said = {"a": "p", "b": "q"}
    assert config_of(words, tmp_path / "said", states=said).states[0].output == "p"
    free = changed(carried_graph(), free_axes)
    refused(tmp_path, "state h0: .*more than one axis may be the batch", import_onnx, free, tmp_path / "m")
    refused(tmp_path, "got int64 and a vocabulary of 0", import_onnx, words_graph(), tmp_path / "m")


def with_a_first_value(graph: Any) -> None:
    """Adds the second state's initial value to the file, as an input's default."""
    graph.initializer.append(numpy_helper.from_array(np.zeros((2, 1, 24), np.float32), "c0"))


def with_a_global_output(graph: Any) -> None:
    """Adds an output [2], as long as two sessions, that belongs to neither of them."""
    graph.node.append(helper.make_node("ReduceMax", ["y"], ["all"], axes=[0], keepdims=0))
    graph.output.append(helper.make_tensor_value_info("all", TensorProto.FLOAT, [2]))


def test_states_and_outputs_that_look_like_something_else(tmp_path: Path) -> None:
    first = changed(carried_graph(), with_a_first_value)
    words = "input c0: has a value in the file.* the state that output cn continues"
    refused(tmp_path, words, import_onnx, first, tmp_path / "m", **QUICK)
    shared = changed(
        small_graphs.graph([*small_graphs.STEP, small_graphs.node("Identity", "h_out", "y")], layout="step").model,
        with_a_global_output,
    )
    words = r"output all: got float32 \[2\] for .* sessions, expected floats"
    refused(tmp_path, words, import_onnx, shared, tmp_path / "m", **QUICK)


def test_a_batch_or_a_length_baked_into_the_graph(tmp_path: Path) -> None:
    example = (torch.randn(1, 5, 3), torch.zeros(2, 1, 24), torch.zeros(2, 1, 24))
    names = (["x", "h0", "c0"], ["y", "hn", "cn"])
    fixed = exported(Carried(), example, names, {})
    refused(tmp_path, "input x: .*a length is baked into the graph", import_onnx, fixed, tmp_path / "m")
    free = {"batch": "free"}
    refused(tmp_path, "state h0: .*a batch is baked into the graph", import_onnx, fixed, tmp_path / "m", **free)
    axes = {"x": {0: "batch"}, "h0": {1: "batch"}, "c0": {1: "batch"}}
    long = exported(Carried(), example, names, axes)
    refused(tmp_path, "input x: .*a length is baked into the graph", import_onnx, long, tmp_path / "m")


def test_files_that_are_none(tmp_path: Path) -> None:
    data = handmade_graph()
    for number, spoilt in enumerate((b"no graph", data[: len(data) // 2], b"\0" * 100)):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(spoilt)
        refused(tmp_path, "not an ONNX model|refuses the graph", import_onnx, path, tmp_path / "m", **QUICK)
    refused(tmp_path, "no such file", import_onnx, tmp_path / "nowhere", tmp_path / "m")


def external(graph: Any) -> None:
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def unknown_op(graph: Any) -> None:
    graph.node.append(helper.make_node("Conjure", ["x"], ["z"]))


def test_graphs_that_are_hostile_or_unknown(tmp_path: Path) -> None:
    options = {"constants": HANDMADE_CONSTANTS, **QUICK}
    outside = changed(handmade_graph(), external)
    refused(tmp_path, "keeps weights in other files; pass the path", import_onnx, outside, tmp_path / "m", **options)
    unknown = changed(handmade_graph(), unknown_op)
    refused(tmp_path, "onnxruntime refuses the graph", import_onnx, unknown, tmp_path / "m", **options)


def test_token_ids_through_the_graph(tmp_path: Path) -> None:
    config_of(words_graph(), tmp_path / "m", vocabulary=20)
    ids: Array = np.array([3, 19, 0, 7], np.int32)
    assert offline(tmp_path / "m", ids)["prediction"].shape == (4, 20)
