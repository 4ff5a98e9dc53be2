"""Graphs in half precision do not crash onnxruntime."""

from __future__ import annotations

import subprocess
import sys

import onnx
from cellkeeper_service.engine.half_precision import FUSED, unusable_optimizers
from onnx import parser

GRAPH = """<ir_version: 8, opset_import: ["" : 18]>
g (KIND[2, b, 3] x) => (KIND[b, 2, 5] y) <KIND[3, 5] w = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}> {
    turned = Transpose <perm = [1, 0, 2]> (x)
    y = MatMul (turned, w)
}"""
OPEN = (
    "import sys; from cellkeeper_service.engine.ort import open_session; open_session(sys.stdin.buffer.read(), 1, 'g')"
)


def graph(kind: str) -> bytes:
    model = parser.parse_model(GRAPH.replace("KIND", kind))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def test_a_transposed_product_opens() -> None:
    """In a process of its own, which a crash ends."""
    result = subprocess.run([sys.executable, "-c", OPEN], input=graph("float16"), capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr.decode()[-2000:]


def test_other_graphs_keep_every_optimizer() -> None:
    assert unusable_optimizers(graph("float")) == []
    assert unusable_optimizers(graph("float16")) == [FUSED]
    assert unusable_optimizers(b"no model") == []
