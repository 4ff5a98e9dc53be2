"""Folds values that a graph computes from constants alone, such as paddings that torch's exporter writes as nodes."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

UNREADABLE = (shape_inference.InferenceError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
"""What ONNX's own functions raise for a graph that is damaged or that they do not support."""
FEW = 1024  # the most values of a tensor that may describe shapes; of larger tensors, only the shape is used
FOLDED = (
    *("Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Gather", "Identity", "Mul", "Neg"),
    *("Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
)


def fold(nodes: Iterable[Any], known: dict[str, Any], opsets: Any, ir_version: int) -> None:
    """Adds small integer and boolean arrays that the nodes compute from `known` ones. known: numpy arrays by name."""
    for node in nodes:
        if node.op_type not in FOLDED or len(node.output) != 1 or node.output[0] in known:
            continue
        given = {name: known[name] for name in node.input if name in known}
        if len(given) < len({name for name in node.input if name}):
            continue
        if node.op_type == "ConstantOfShape" and prod(int(size) for size in given[node.input[0]].reshape(-1)) > FEW:
            continue
        kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in given.items()}
        inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
        graph = helper.make_graph([node], "constant", inputs, [onnx.ValueInfoProto(name=node.output[0])])
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        try:
            with np.errstate(all="ignore"):
                (result,) = ReferenceEvaluator(model).run(None, given)
        except Exception:  # noqa: BLE001 - whatever ONNX's reference evaluator raises for a damaged node
            continue
        value = np.asarray(result)
        if value.size <= FEW and value.dtype.kind in "iub":
            known[node.output[0]] = value


def small(tensor: Any) -> Any | None:
    """Returns the values of a tensor with at most FEW of them, None for a larger one."""
    return numpy_helper.to_array(tensor) if prod(tensor.dims) <= FEW else None
