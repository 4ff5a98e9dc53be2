"""Which of onnxruntime's optimizers a graph in half precision has to do without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from .onnx_checks import graphs_of_model, tensors_of_model

FUSED = "MatmulTransposeFusion"
HALF = onnx.TensorProto.FLOAT16
KINDS = ("to", "dtype", "output_dtype")
"""The attributes of operators that say of which type their result is."""


def unusable_optimizers(model: bytes) -> Sequence[str]:
    """Returns the names of optimizers with which onnxruntime crashes on the model.

    One of them fuses MatMul with the Transpose before it, also in float16, which the fused operator does not compute on
    the CPU; the next optimizer reads past it (1.32.0, a segmentation fault).
    """
    try:
        parsed = onnx.load_model_from_string(model)
    except Exception:  # noqa: BLE001 - onnxruntime says what is wrong with the model
        return []
    half = any(tensor.data_type == HALF for tensor in tensors_of_model(parsed))
    return [FUSED] if half or any(map(_half, graphs_of_model(parsed))) else []


def _half(graph: Any) -> bool:
    """graph: or a function, whose inputs are only names."""
    values = [value for value in (*graph.input, *graph.value_info) if not isinstance(value, str)]
    return any(value.type.tensor_type.elem_type == HALF for value in values) or any(
        attribute.name in KINDS and attribute.i == HALF for node in graph.node for attribute in node.attribute
    )
