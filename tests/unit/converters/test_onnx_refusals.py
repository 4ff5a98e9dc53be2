"""Graphs that exporters leave in a form that cannot be served: the import says what is wrong, and what to export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from cellkeeper_service.converters import import_onnx, import_torch
from torch import Tensor, nn

from .leftovers import refused
from .small_graphs import branch, graph, node

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
COPIED = [node("Identity", "x", "y")]


class Step(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 8)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, c = self.cell(x, (h, c))
        return h * 2, h, c


def renamed(data: bytes, names: dict[str, str]) -> bytes:
    """Returns the model with other names of its inputs and outputs."""
    model = onnx.load_model_from_string(data)
    for one in model.graph.node:
        one.input[:] = [names.get(name, name) for name in one.input]
        one.output[:] = [names.get(name, name) for name in one.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return bytes(model.SerializeToString())


def test_a_graph_without_states_is_told_to_export_them(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(graph([node("Tanh", "x", "y")]).model)
    del model.graph.input[1:]
    del model.graph.output[1:]
    data = bytes(model.SerializeToString())
    refused(tmp_path, r"no input that could be a state.*forward\(x, h, c\)", import_onnx, data, tmp_path / "m")


@pytest.mark.parametrize("limit", [0, 2**31, 10**30])
def test_a_time_limit_that_no_thread_can_wait_for_is_refused(limit: int, tmp_path: Path) -> None:
    data = graph([node("Tanh", "x", "y"), node("Neg", "h", "h_out")], layout="step").model
    refused(
        tmp_path,
        f"trial_call_ms: got {limit}, expected 1 to 2147483647",
        import_onnx,
        data,
        tmp_path / "m",
        trial_call_ms=limit,
    )


@pytest.mark.parametrize("vocabulary", [-1, {"x": 5, "h": -1}])
def test_a_vocabulary_below_zero_is_refused(vocabulary: Any, tmp_path: Path) -> None:
    data = graph([node("Tanh", "x", "y"), node("Neg", "h", "h_out")], layout="step").model
    refused(tmp_path, "vocabulary: got -1, expected how many", import_onnx, data, tmp_path / "m", vocabulary=vocabulary)


@pytest.mark.parametrize("unread", ["h", "x"])
def test_an_input_that_no_node_reads_is_refused(unread: str, tmp_path: Path) -> None:
    nodes = {
        "h": [node("Tanh", "x", "y"), node("Neg", "x", "h_out")],
        "x": [node("Tanh", "h", "y"), node("Neg", "h", "h_out")],
    }
    data = graph(nodes[unread], layout="step").model
    refused(
        tmp_path, f"input {unread}: no node of the graph reads it", import_onnx, data, tmp_path / "m", layout="step"
    )


def test_states_that_torch_export_merged_are_refused(tmp_path: Path) -> None:
    zeros, batch = torch.zeros(4, 8), torch.export.Dim("batch")
    shapes = ({0: batch}, {0: batch}, {0: batch})
    merged = torch.export.export(Step(), (torch.zeros(4, 3), zeros, zeros), dynamic_shapes=shapes)
    states: dict[str, Any] = {"states": ("h", "c"), **QUICK}
    refused(
        tmp_path,
        "input h: no node of the graph reads it.*a tensor for each",
        import_torch,
        merged,
        tmp_path / "m",
        **states,
    )
    apart = torch.export.export(Step(), (torch.zeros(4, 3), zeros, zeros.clone()), dynamic_shapes=shapes)
    assert import_torch(apart, tmp_path / "m", **states).parity.relative < 1e-5


def test_a_state_is_read_in_a_branch(tmp_path: Path) -> None:
    kept = branch("kept", node("Identity", "h", "kept"))
    nodes = [
        node("If", "true", "before", then_branch=kept, else_branch=kept),
        node("Add", "before x", "h_out"),
        node("Tanh", "h_out", "y"),
    ]
    data = graph(nodes, layout="step").model
    assert import_onnx(data, tmp_path / "m", layout="step", **QUICK).parity.difference == 0.0


def test_names_of_tensorflow_are_matched(tmp_path: Path) -> None:
    data = renamed(
        graph([node("Add", "h x", "h_out"), node("Tanh", "h_out", "y")], layout="step").model,
        {"h": "cell/h_in:0", "h_out": "cell/h_out:0"},
    )
    config: Any = import_onnx(data, tmp_path / "m", layout="step", **QUICK).bundle.config
    assert [(state.input, state.output) for state in config.states] == [("cell/h_in:0", "cell/h_out:0")]


def test_a_graph_that_cannot_run_is_not_said_to_have_a_fixed_batch(tmp_path: Path) -> None:
    file = tmp_path / "double.onnx"
    axes = {"x": {0: "B", 1: "T"}, "h": {1: "B"}, "y": {0: "B", 1: "T"}, "h_out": {1: "B"}}
    example = (torch.zeros(4, 5, 3).double(), torch.zeros(1, 4, 8).double())
    model = nn.GRU(3, 8, batch_first=True).double()
    with pytest.warns():
        torch.onnx.export(
            model, example, file, input_names=["x", "h"], output_names=["y", "h_out"], dynamic_axes=axes, dynamo=False
        )
    words = r"the graph cannot run, or is declared wrongly \(.*does not support double"
    refused(tmp_path, words, import_onnx, file, tmp_path / "m")


def test_a_graph_for_one_length_is_told_to_take_any(tmp_path: Path) -> None:
    fifth = onnx.helper.make_node("Constant", [], ["fifth"], value_int=4)
    data = graph([fifth, node("Gather", "x fifth", "newest", axis=0), node("Add", "h newest", "h_out"), *COPIED]).model
    words = r"a call for 23 sessions and 3 time steps fails: .*out of data bounds.*; if it is made for one length"
    refused(tmp_path, words, import_onnx, data, tmp_path / "m", **QUICK)


def test_a_loop_that_ends_early_is_named(tmp_path: Path) -> None:
    any_float = onnx.TensorProto.FLOAT
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [
            node("ReduceMax", "sum", "largest", keepdims=0),
            node("Less", "largest half", "going_out"),
            node("Gather", "x turn", "now", axis=0),
            node("Add", "sum now", "sum_out"),
            node("Identity", "sum_out", "each"),
        ],
        "body",
        [
            value("turn", onnx.TensorProto.INT64, []),
            value("going", onnx.TensorProto.BOOL, []),
            value("sum", any_float, None),
        ],
        [
            value("going_out", onnx.TensorProto.BOOL, []),
            value("sum_out", any_float, None),
            value("each", any_float, None),
        ],
    )
    length = [node("Shape", "x", "dims"), node("Gather", "dims zero_axis", "length")]
    data = graph([*length, node("Loop", "length true h", "h_out y", body=body)]).model
    words = r"got \[\d+, \d+, 2\], expected .*; a Loop that ends early returns fewer time steps than it gets"
    refused(tmp_path, words, import_onnx, data, tmp_path / "m", **QUICK)


def test_a_graph_without_a_value_for_ordinary_inputs_says_so(tmp_path: Path) -> None:
    nodes = [node("Neg", "x", "less"), node("Abs", "less", "size"), node("Neg", "size", "below")]
    nodes += [node("Log", "below", "z"), node("Add", "z h", "y"), node("Tanh", "y", "h_out")]
    data = graph(nodes, layout="step").model
    words = "it returns NaN for ordinary inputs, so nothing can be compared.*limit its inputs within the model"
    refused(tmp_path, words, import_onnx, data, tmp_path / "m", layout="step", **QUICK)


def test_a_graph_may_overflow_for_inputs_a_thousand_times_as_large(tmp_path: Path) -> None:
    """The original does, too."""
    nodes = [node("Abs", "x", "size"), node("Exp", "size", "large"), node("Sub", "large large", "nothing")]
    nodes += [node("Add", "h x", "sum"), node("Tanh", "sum", "h_out"), node("Add", "h_out nothing", "y")]
    data = graph(nodes, layout="step").model
    assert import_onnx(data, tmp_path / "m", layout="step", **QUICK).parity.difference == 0.0
