"""The configuration of a bundle with a graph."""

from __future__ import annotations

from typing import Any

GRAPH: dict[str, Any] = {
    "format": "cellkeeper-bundle/1",
    "name": "m",
    "cell": "onnx",
    "graph": "model.onnx",
    "layout": "step",
    "input": {"kind": "features", "name": "x", "size": 2},
    "states": [{"name": "h", "input": "h", "output": "hn", "shape": [2]}],
    "outputs": [{"name": "y", "output": "y", "shape": [2]}],
}
