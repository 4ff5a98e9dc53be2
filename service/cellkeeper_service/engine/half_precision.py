"""Which of onnxruntime's optimizers a graph in half precision has to do without."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from .batch_axis.shapes import graphs_within

FUSED = "MatmulTransposeFusion"


def unusable_optimizers(model: bytes) -> Sequence[str]:
    """Returns the names of optimizers with which onnxruntime crashes on the model.

    One of them fuses MatMul with the Transpose before it, also in float16, which the fused operator does not compute on
    the CPU; the next optimizer reads past it (1.32.0, a segmentation fault).
    """
    try:
        graph = onnx.load_from_string(model).graph
    except Exception:  # noqa: BLE001 - onnxruntime says what is wrong with the model
        return []
    return [FUSED] if any(_half(inner) for inner in graphs_within(graph)) else []


def _half(graph: onnx.GraphProto) -> bool:
    half = onnx.TensorProto.FLOAT16
    return (
        any(weights.data_type == half for weights in graph.initializer)
        or any(value.type.tensor_type.elem_type == half for value in (*graph.input, *graph.value_info))
        or any(attribute.i == half for node in graph.node if node.op_type == "Cast" for attribute in node.attribute)
    )
