"""Collects the nodes and constants of an ONNX graph while it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from onnx import helper, numpy_helper

from .stack import Array

COLUMNS = 16  # as in engine/graph.py: every row of a dense layer starts at a vector boundary


class Value(NamedTuple):
    """[T, B, columns], of which only the first `width` columns are meaningful."""

    name: str
    width: int
    columns: int


@dataclass
class GraphWriter:
    """Each method adds to the graph and returns the name of the result."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def node(self, op: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        output = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: Array | float, dtype: str = "float32") -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(value, dtype)), name))
        return name

    def number(self, value: float) -> str:
        """Adds a float32 scalar."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

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
