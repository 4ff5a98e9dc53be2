"""Graphs whose work grows without bound with what a client sends.

A trial passes, but a single request would block everybody. They are refused by their structure, at import and at load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cellkeeper_service.converters import import_onnx
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.engine.unbounded_work import refuse_unbounded
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.write import write_bundle
from onnx import TensorProto, helper, numpy_helper

from .leftovers import refused
from .small_graphs import STEP, Graph, graph, node

ANY = TensorProto.FLOAT
REST = [node("Mul", "looped float_zero", "nothing"), node("Add", "x nothing", "y"), *STEP]
NUMBERS = {"float_zero": 0.0, "few": 3, "one_turn": 1, "thousand": 1000, "most": (1 << 63) - 1, "tiny": 1e-30}
TURNS = [  # |x| times a tiny number: 0 for what a trial sends, 2^60 for what a client can send
    node("ReduceL1", "x", "sum", keepdims=0),
    node("Mul", "sum tiny", "scaled"),
    node("Cast", "scaled", "turns", to=TensorProto.INT64),
]


def loop(turns: str, *body: Any, first: str = "true") -> Any:
    """Returns a Loop that continues while `going_out` is true, and carries a value. turns: "-" for no limit."""
    inside = helper.make_graph(
        [*body, node("Tanh", "value", "value_out")],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", ANY, None),
        ],
        [
            helper.make_tensor_value_info("going_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value_out", ANY, None),
        ],
    )
    return node("Loop", f"{turns} {first} x", "looped", body=inside)


def made(*nodes: Any) -> Graph:
    """Returns a graph of these nodes followed by REST."""
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(_array(value), name))
        for name, value in NUMBERS.items()
    ]
    return graph([*constants, *nodes, *REST], layout="step")


def _array(value: float) -> Any:
    return np.array(value, np.int64 if isinstance(value, int) else np.float32)


ON = node("Identity", "going", "going_out")
WHILE_LARGE = [
    node("ReduceL1", "value", "size", keepdims=0),
    node("Greater", "size huge", "going_out"),
]
WHILE_FEW = [node("Less", "turn few", "going_out")]
LENGTH = [node("Shape", "x", "dims"), node("ReduceProd", "dims", "length", keepdims=0)]

UNBOUNDED = {
    "turns": (made(*TURNS, loop("turns", ON)), r"'Loop_looped' \(Loop\): its number of iterations, turns,"),
    "condition alone": (made(loop("-", *WHILE_LARGE)), "its condition depends on values .* nothing else ends it"),
    "condition and no bound to speak of": (
        made(loop("most", *WHILE_LARGE)),
        "its condition depends on values .* otherwise it ends after 9223372036854775807 iterations",
    ),
    "condition and a bound written as a number": (
        made(helper.make_node("Constant", [], ["million"], value_int=10**6), loop("million", *WHILE_LARGE)),
        "its condition depends on values .* otherwise it ends after 1000000 iterations",
    ),
    "condition and a bound computed from constants": (
        made(node("Mul", "thousand thousand", "million"), loop("million", *WHILE_LARGE)),
        "its condition depends on values .* otherwise it ends after 1000000 iterations",
    ),
    "within a branch": (
        made(
            node("Cast", "float_zero", "never", to=TensorProto.BOOL),
            *TURNS,
            node(
                "If",
                "never",
                "looped",
                then_branch=helper.make_graph(
                    [loop("turns", ON)], "a", [], [helper.make_tensor_value_info("looped", ANY, None)]
                ),
                else_branch=helper.make_graph(
                    [node("Identity", "x", "same")], "b", [], [helper.make_tensor_value_info("same", ANY, None)]
                ),
            ),
        ),
        "its number of iterations, turns,",
    ),
    "a range": (
        made(
            *TURNS,
            node("Range", "zero_axis turns one_turn", "counting"),
            node("ReduceSum", "counting", "counted", keepdims=0),
            node("Cast", "counted", "looped", to=ANY),
        ),
        r"'Range_counting' \(Range\): the size of its result, turns, depends on values that clients send",
    ),
    "a tensor": (
        made(
            *TURNS,
            node("Reshape", "turns one", "as_shape"),
            node("ConstantOfShape", "as_shape", "zeros"),
            node("ReduceSum", "zeros", "looped", keepdims=0),
        ),
        r"\(ConstantOfShape\): the size of its result, as_shape, depends",
    ),
    "a window": (
        made(
            *TURNS,
            node("Add", "turns one_turn", "length"),  # a trial's windows are 1 long
            node("HannWindow", "length", "window"),
            node("ReduceSum", "window", "looped", keepdims=0),
        ),
        r"'HannWindow_window' \(HannWindow\): the size of its result, length, depends",
    ),
}
SIZES = {  # by operator, as documented: its inputs, with those that decide the size of its result in capitals
    "AffineGrid": "theta SIZE",
    "BlackmanWindow": "SIZE",
    "CenterCropPad": "input_data SHAPE",
    "Col2Im": "input IMAGE_SHAPE BLOCK_SHAPE",
    "ConstantOfShape": "INPUT",
    "CropAndResize": "x rois batch_indices CROP_SIZE",
    "DFT": "input DFT_LENGTH axis",
    "Expand": "input SHAPE",
    "HammingWindow": "SIZE",
    "HannWindow": "SIZE",
    "MaxUnpool": "x i OUTPUT_SHAPE",
    "MelWeightMatrix": "NUM_MEL_BINS DFT_LENGTH SAMPLE_RATE LOWER_EDGE_HERTZ UPPER_EDGE_HERTZ",
    "OneHot": "indices DEPTH values",
    "Pad": "data PADS value axes",
    "Range": "START LIMIT DELTA",
    "Resize": "x SCALES_BEFORE_OPSET_11 SCALES SIZES",
    "STFT": "signal FRAME_STEP window FRAME_LENGTH",
    "Tile": "input REPEATS",
    "Upsample": "x SCALES",
}
BOUNDED = {
    "as many turns as the input has values": made(*LENGTH, loop("length", ON)),
    "a condition that a shape bounds": made(*LENGTH, loop("length", *WHILE_LARGE)),
    "a condition that a constant bounds": made(loop("few", *WHILE_LARGE)),
    "a condition that a computed constant bounds": made(
        node("Add", "few one_turn", "four"), node("Sub", "four few", "once"), loop("once", *WHILE_LARGE)
    ),
    "a condition that the turns decide": made(loop("-", *WHILE_FEW)),
}


@pytest.mark.parametrize("name", UNBOUNDED)
def test_work_that_a_client_decides_without_a_bound_is_refused(name: str, tmp_path: Path) -> None:
    found, words = UNBOUNDED[name]
    refused(tmp_path, words, import_onnx, found.model, tmp_path / "m", max_batch=4, report=str)
    bundle = write_bundle(tmp_path / "b", found.config(), {}, graph=found.model)
    with pytest.raises(StartError, match=words):
        load_engine(bundle, "cpu", 4)


@pytest.mark.parametrize(("operator", "inputs"), SIZES.items())
def test_the_size_of_a_result_is_not_a_client_s_to_decide(operator: str, inputs: str) -> None:
    for name in inputs.split():
        given = [helper.make_tensor_value_info(one, ANY, None) for one in inputs.split()]
        model = helper.make_model(helper.make_graph([node(operator, inputs, "result")], "g", given, []))
        if name.isupper():
            with pytest.raises(StartError, match=rf"\({operator}\): the size of its result, {name}, depends on values"):
                refuse_unbounded(model, [name], "m")
        else:
            refuse_unbounded(model, [name], "m")


@pytest.mark.parametrize("name", BOUNDED)
def test_work_that_is_bounded_is_served(name: str, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", BOUNDED[name].config(), {}, graph=BOUNDED[name].model)
    assert load_engine(bundle, "cpu", 4).exact


def test_a_bound_with_the_name_of_a_constant_around_it_is_not_that_constant() -> None:
    """Within the outer loop, `most` is the length of the input."""
    kinds = {"outer_turn": TensorProto.INT64, "outer_going": TensorProto.BOOL, "most": TensorProto.INT64}
    inside = helper.make_graph(
        [loop("most", *WHILE_LARGE), node("Identity", "outer_going", "go_on"), node("Identity", "most", "length_out")],
        "outer",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in kinds.items()],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("length_out", TensorProto.INT64, []),
            helper.make_tensor_value_info("looped", ANY, None),
        ],
    )
    hidden = made(*LENGTH, node("Loop", "few true length", "last looped", body=inside))
    refuse_unbounded(onnx.load_model_from_string(hidden.model), ["x", "h"], "m")
