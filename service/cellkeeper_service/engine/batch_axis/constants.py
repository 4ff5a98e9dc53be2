"""Values that a graph computes from constants alone, such as the padding that torch's exporter writes as nodes."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

UNREADABLE = (shape_inference.InferenceError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
"""What ONNX's own functions raise for a graph that is damaged, or that they do not know."""
FEW = 1024  # values of a tensor that may say shapes; of larger ones the shape alone is looked at
FOLDED = (
    *("Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Gather", "Identity", "Mul", "Neg"),
    *("Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
)


def fold(nodes: Iterable[Any], known: dict[str, Any], opsets: Any, ir_version: int) -> None:
    """Adds the small whole numbers and truth values that the nodes compute from `known` ones, numpy arrays by name."""
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
        except Exception:  # noqa: BLE001 - whatever ONNX's reference raises for a damaged node
            continue
        value = np.asarray(result)
        if value.size <= FEW and value.dtype.kind in "iub":
            known[node.output[0]] = value


def small(tensor: Any) -> Any | None:
    """The values of a tensor of few, None of a larger one."""
    return numpy_helper.to_array(tensor) if prod(tensor.dims) <= FEW else None
