"""Graphs in half precision do not crash onnxruntime."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest
from cellkeeper_service.engine.half_precision import FUSED, unusable_optimizers
from onnx import parser

GRAPH = """<ir_version: 8, opset_import: ["" : 18]>
g (KIND[2, b, 3] x) => (KIND[b, 2, 5] y) <KIND[3, 5] w = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}> {
    turned = Transpose <perm = [1, 0, 2]> (x)
    y = MatMul (turned, w)
}"""
WITHIN = """<ir_version: 8, opset_import: ["" : 18, "own" : 1]>
g (float[2, b, 3] x) => (float[b, 2, 5] y) {
    y = own.Product (x)
}
<domain: "own", opset_import: ["" : 18]>
Product (x) => (y) {
    half = Cast <to = 10> (x)
    w = Constant <value = float16[3, 5] {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}> ()
    turned = Transpose <perm = [1, 0, 2]> (half)
    product = MatMul (turned, w)
    y = Cast <to = 1> (product)
}"""  # only a function is in half precision
LIKE = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2, b, 3] x) => (float[b, 2, 5] y) {
    w = Constant <value = float16[3, 5] {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}> ()
    half = CastLike (x, w)
    turned = Transpose <perm = [1, 0, 2]> (half)
    product = MatMul (turned, w)
    y = Cast <to = 1> (product)
}"""  # only a constant is
OPEN = (
    "import sys; from cellkeeper_service.engine.ort import open_session; open_session(sys.stdin.buffer.read(), 1, 'g')"
)


def graph(kind: str, text: str = GRAPH) -> bytes:
    model = parser.parse_model(text.replace("KIND", kind))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize("text", [GRAPH, WITHIN, LIKE])
def test_a_transposed_product_opens(text: str) -> None:
    """In a process of its own, which a crash ends."""
    result = subprocess.run([sys.executable, "-c", OPEN], input=graph("float16", text), capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr.decode()[-2000:]


def test_other_graphs_keep_every_optimizer() -> None:
    assert unusable_optimizers(graph("float")) == []
    assert unusable_optimizers(graph("float16")) == [FUSED]
    assert unusable_optimizers(b"no model") == []
