"""Collects the nodes and constants of an ONNX graph while it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cellkeeper_service.domain.engine import Array

OPSET = 17  # with IR version 8: read by every onnxruntime since 1.12
IR_VERSION = 8

# Every row of a dense layer starts at a multiple of this many floats, so that vectorized kernels treat an element
# the same way at any row of the batch (docs/adr/101-head-columns.md).
COLUMNS = 16

# PyTorch's gates are i, f, g, o and r, z, n; ONNX has i, o, f, c and z, r, h
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


class Value(NamedTuple):
    """[T, B, columns], of which only the first `width` columns are meaningful."""

    name: str
    width: int
    columns: int


@dataclass
class GraphWriter:
    """Each method adds to the graph and returns the name of the result. prefix: of the names within an inner graph."""

    prefix: str = ""
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def node(self, op: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        output = name or f"{self.prefix}{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: Array, dtype: str = "float32") -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype, order="C"), name))
        return name

    def number(self, value: float) -> str:
        """Adds a float32 scalar."""
        return self.constant(np.array(value))

    def vector(self, value: Array, columns: int, rest: float = 0.0) -> str:
        """Adds [columns]: `value`, filled up with `rest`."""
        filled = np.full(columns, rest, np.float32)
        filled[: len(value)] = value
        return self.constant(filled)

    def axes(self, *axes: int) -> str:
        return self.constant(np.array(axes), "int64")

    def narrow(self, value: Value) -> str:
        """Drops the padding: [T, B, width]."""
        if value.columns == value.width:
            return value.name
        return self.node("Slice", [value.name, self.axes(0), self.axes(value.width), self.axes(2)])

    def padded(self, value: Value) -> Value:
        """Pads to whole vectors. Only then do vectorised kernels treat an element alike wherever it is in the batch."""
        columns = -(-value.columns // COLUMNS) * COLUMNS
        if columns == value.columns:
            return value
        pads = self.axes(0, 0, 0, 0, 0, columns - value.columns)
        return Value(self.node("Pad", [value.name, pads]), value.width, columns)

    def dense(self, value: Value, weight: Array, bias: Array | None) -> Value:
        """Adds weight x + bias, padded to whole vectors. weight: [units, width]."""
        units = len(weight)
        padded = -(-units // COLUMNS) * COLUMNS
        filled = np.zeros((value.columns, padded), np.float32)
        filled[: value.width, :units] = weight.T
        name = self.node("MatMul", [value.name, self.constant(filled)])
        if bias is not None:
            name = self.node("Add", [name, self.vector(bias, padded)])
        return Value(name, units, padded)

    def recurrent(
        self,
        cell: str,
        weights: Mapping[str, Array],
        reset_after: bool,
        value: str,
        before: Sequence[str],
        results: Sequence[str],
        **attributes: Any,
    ) -> None:
        """Adds an LSTM or GRU layer [T, B, F] and its states [1, B, H] -> [T, 1, B, H] and the new states, `results`.

        weights: weight_ih, weight_hh, and bias_ih and bias_hh or neither, with their gates in PyTorch's order.
        """
        ordered = {
            name: np.concatenate([np.split(values, len(_GATES[cell]))[gate] for gate in _GATES[cell]])
            for name, values in weights.items()
        }
        inputs = [value, self.constant(ordered["weight_ih"][None]), self.constant(ordered["weight_hh"][None])]
        biases = [ordered[name] for name in ("bias_ih", "bias_hh") if name in ordered]
        inputs.append(self.constant(np.concatenate(biases)[None]) if biases else "")
        if cell == "gru":
            attributes["linear_before_reset"] = int(reset_after)
        attributes["hidden_size"] = weights["weight_hh"].shape[1]
        self.nodes.append(helper.make_node(cell.upper(), [*inputs, "", *before], results, **attributes))

    def model(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> bytes:
        """Returns the serialized ONNX model."""
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cellkeeper")
        return bytes(model.SerializeToString())


def floats(name: str, *shape: int | str) -> Any:
    """Returns an input or output of float32. shape: a text is a size that varies."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def integers(name: str, *shape: int | str, dtype: int = TensorProto.INT64) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)
