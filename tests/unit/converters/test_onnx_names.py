"""Names of a graph that say nothing, hide others, or are already taken, and what graphs of old opsets lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.converters import import_onnx
from cellkeeper_service.engine.load import offline
from cellkeeper_service.engine.onnx_checks import refuse_operators
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.config import Features, GraphConfig
from onnx import parser

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 4, "report": str}
X = np.arange(1, 7, dtype=np.float32).reshape(3, 2) / 10


def graph(ends: str, nodes: str, opset: int = 17, ir_version: int = 8) -> bytes:
    head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n'
    return bytes(parser.parse_model(f"{head}agraph {ends}\n{{\n{nodes}\n}}").SerializeToString())


@pytest.mark.parametrize(("into", "out"), [("input_{}", "output_{}"), ("in_{}", "out_{}")])
def test_a_number_alone_pairs_no_state(into: str, out: str, tmp_path: Path) -> None:
    """Number 1 is a place: the state goes in first, and comes out second. Its width is also that of the output."""
    h, x, y, h_out = into.format(1), into.format(2), out.format(1), out.format(2)
    ends = f"(float[B, 2] {h}, float[B, 3] {x}) => (float[B, 2] {y}, float[B, 2] {h_out}) <int64[1] axis = {{1}}>"
    model = graph(ends, f"    sum = ReduceSum({x}, axis)\n    {h_out} = Add({h}, sum)\n    {y} = Neg({h_out})")
    words = "states: the names do not show which output continues which input; pass states"
    refused(tmp_path, words, import_onnx, model, tmp_path / "m", **QUICK)
    import_onnx(model, tmp_path / "m", states={h: h_out}, **QUICK)
    ones = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(offline(tmp_path / "m", ones)["prediction"], [[-3, -3], [-6, -6]])


def test_an_input_is_not_read_by_a_loop_that_hides_its_name(tmp_path: Path) -> None:
    nodes = """    y = Loop(few, yes, x) <body = b (int64 i, bool go, float[B, 2] h) => (bool on, float[B, 2] u) {
        on = Identity(go)
        u = Tanh(h)
    }>
    h_out = Neg(x)"""
    ends = "(float[B, 2] x, float[B, 2] h) => (float[B, 2] y, float[B, 2] h_out) <int64 few = {3}, bool yes = {1}>"
    words = "input h: no node of the graph reads it, so its values would be lost"
    refused(tmp_path, words, import_onnx, graph(ends, nodes), tmp_path / "m", **QUICK)


@pytest.mark.parametrize(
    ("around", "within"), [(", float x_step = {2.0}", ""), ("", "x_step = Constant<value_float = 2.0>() ")]
)
def test_a_time_axis_is_removed_where_only_a_branch_has_the_new_name(around: str, within: str, tmp_path: Path) -> None:
    nodes = f"""    z = If(yes) <
        then_branch = a () => (float[B, 1, 2] t) {{ {within}t = Mul(x, x_step) }},
        else_branch = b () => (float[B, 1, 2] e) {{ e = Identity(x) }}
    >
    y = Add(z, h)
    h_out = Identity(y)"""
    ends = f"""(float[B, 1, 2] x, float[B, 1, 2] h) => (float[B, 1, 2] y, float[B, 1, 2] h_out)
<bool yes = {{1}}{around}>"""
    import_onnx(graph(ends, nodes), tmp_path / "m", layout="batch_first", **QUICK)
    np.testing.assert_allclose(offline(tmp_path / "m", X)["prediction"], np.cumsum(2 * X, axis=0), rtol=1e-6)


@pytest.mark.parametrize(("opset", "ir_version"), [(7, 3), (8, 3), (9, 4)])
def test_a_control_input_of_an_old_opset(opset: int, ir_version: int, tmp_path: Path) -> None:
    """Opset 7 has no Expand to repeat the number for each session."""
    ends = "(float[B, 2] x, float[B, 1] gain, float[B, 2] h) => (float[B, 2] y, float[B, 2] h_out)"
    nodes = "    z = Mul(x, gain)\n    y = Add(z, h)\n    h_out = Identity(y)"
    model = graph(ends, nodes, opset, ir_version)
    import_onnx(model, tmp_path / "m", constants={"gain": np.array(3.0)}, **QUICK)
    np.testing.assert_allclose(offline(tmp_path / "m", X)["prediction"], np.cumsum(3 * X, axis=0), rtol=1e-6)


def test_a_dropout_in_a_branch_takes_the_branchs_own_training_mode() -> None:
    """The branch's `training` hides the graph's, which is false."""
    nodes = """    z = If(yes) <
        then_branch = a () => (float[B, 2] t)
            <float ratio = {0.5}, bool training = {1}> { t = Dropout(x, ratio, training) },
        else_branch = b () => (float[B, 2] e) { e = Identity(x) }
    >
    y = Dropout(z, half, training)
    h_out = Add(y, h)"""
    ends = """(float[B, 2] x, float[B, 2] h) => (float[B, 2] y, float[B, 2] h_out)
<bool yes = {1}, bool training = {0}, float half = {0.5}>"""
    config = GraphConfig("m", "model.onnx", "step", "x", Features(2), (), (), ())
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\nagraph {ends}\n{{\n{nodes}\n}}')
    with pytest.raises(StartError, match=r"node 't' \(Dropout\): drops values at random in training mode"):
        refuse_operators(model, config, "m")
