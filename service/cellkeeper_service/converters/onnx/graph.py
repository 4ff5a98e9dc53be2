"""An ONNX file's inputs and outputs, and small changes to its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from cellkeeper_service.engine.batch_axis.shapes import bodies, graphs_within
from cellkeeper_service.errors import StartError

from ..files import remedy
from ..refusal import ImportRefused
from ..stack import Array
from .external import load_external_data

DTYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.BOOL: "bool",
}


@dataclass(frozen=True)
class Value:
    """An input or an output. dims: a number if fixed, a name (or "") if free; None: unknown."""

    name: str
    dtype: str
    dims: tuple[int | str, ...] | None

    @property
    def free(self) -> tuple[int, ...]:
        """The axes that are not fixed."""
        return tuple(axis for axis, size in enumerate(self.dims or ()) if not isinstance(size, int))

    def __str__(self) -> str:
        dims = "?" if self.dims is None else ", ".join(str(size) if size != "" else "?" for size in self.dims)
        return f"{self.name} {self.dtype}[{dims}]"


@dataclass
class Graph:
    """A model that may be changed.

    inputs: without those that have a value in the file. external: weights were in other files, and are now inside.
    """

    model: Any
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    external: bool = False

    @property
    def defaults(self) -> dict[str, Value]:
        """Inputs with a value in the file: weights, as old exporters list them, or a state's initial value."""
        given = {item.name for item in self.model.graph.initializer}
        return {item.name: _value(item) for item in self.model.graph.input if item.name in given}

    @property
    def read(self) -> set[str]:
        """The names of all values that a node reads or the graph returns."""
        return _read_in(self.model.graph)

    def bytes(self) -> bytes:
        return bytes(self.model.SerializeToString())

    def bake(self, name: str, value: Array) -> None:
        """Turns the input into a constant of the graph."""
        graph = self.model.graph
        kept = [item for item in graph.input if item.name != name]
        del graph.input[:]
        graph.input.extend(kept)
        graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        del self.inputs[name]

    def bake_repeated(self, name: str, value: Array, axis: int, like: tuple[str, int]) -> None:
        """Turns the input into a constant that is repeated along an axis, as often as the batch has sessions.

        value: of length 1 along that axis. like: an input with the same batch, and its batch axis.
        """
        graph = self.model.graph
        parts = ("one", "shape", "batch", "sizes", "axis", "before", "after")
        one, shape, batch, sizes, at, before, after = (self._free_name(f"{name}_{part}") for part in parts)
        self.bake(name, value)
        graph.initializer[-1].name = one
        for constant, numbers in ((at, [like[1]]), (before, [1] * axis), (after, [1] * (value.ndim - axis - 1))):
            graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), constant))
        nodes = [
            helper.make_node("Shape", [like[0]], [shape]),
            helper.make_node("Gather", [shape, at], [batch]),
            helper.make_node("Concat", [before, batch, after], [sizes], axis=0),
            # opset 7 has no Expand; of Tile, inference does not know the shape
            helper.make_node("Expand" if self._opset >= 8 else "Tile", [one, sizes], [name]),
            *graph.node,
        ]
        del graph.node[:]
        graph.node.extend(nodes)

    def without_time(self, inputs: Sequence[str], outputs: Sequence[str], axis: int) -> dict[str, str]:
        """Removes a time axis of length 1. Returns the new names of inputs and outputs by their old ones."""
        graph = self.model.graph
        renamed = {name: self._free_name(f"{name}_step") for name in (*inputs, *outputs)}
        nodes = [self._axis_node("Unsqueeze", renamed[name], name, axis) for name in inputs]
        nodes += list(graph.node)
        nodes += [self._axis_node("Squeeze", name, renamed[name], axis) for name in outputs]
        del graph.node[:]
        graph.node.extend(nodes)
        for values, names in ((graph.input, inputs), (graph.output, outputs)):
            for item in values:
                if item.name in names:
                    item.name = renamed[item.name]
                    if len(item.type.tensor_type.shape.dim) > axis:
                        del item.type.tensor_type.shape.dim[axis]
        del graph.value_info[:]  # inner shapes; onnxruntime infers them again
        changed = read_values(self.model)
        self.inputs, self.outputs = changed
        return renamed

    def with_batch_first(self, state: str, axis: int, rank: int) -> str:
        """Adds an output: a copy of a state's output with axis `axis` first. Returns its name.

        rank: of the state's output.
        """
        graph = self.model.graph
        name = self._free_name(f"{state}_output")
        order = [axis, *(i for i in range(rank) if i != axis)]
        graph.node.append(helper.make_node("Transpose", [state], [name], perm=order))
        dims = self.outputs[state].dims
        shape = None if dims is None else [dims[i] or None for i in order]
        graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        self.outputs[name] = Value(name, "float32", None if dims is None else tuple(dims[i] for i in order))
        return name

    @property
    def _opset(self) -> int:
        versions = [entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")]
        return max(versions, default=13)

    def _axis_node(self, op: str, source: str, target: str, axis: int) -> Any:
        if self._opset < 13:
            return helper.make_node(op, [source], [target], axes=[axis])
        axes = f"cellkeeper_axis_{axis}"
        if all(item.name != axes for item in self.model.graph.initializer):
            self.model.graph.initializer.append(numpy_helper.from_array(np.array([axis], np.int64), axes))
        return helper.make_node(op, [source, axes], [target])

    def _free_name(self, name: str) -> str:
        taken = {item.name for graph in graphs_within(self.model.graph) for item in (*graph.initializer, *graph.input)}
        for graph in graphs_within(self.model.graph):
            taken |= {name for node in graph.node for name in (*node.input, *node.output)}
        while name in taken or name in self.inputs or name in self.outputs:
            name += "_"
        return name


def _read_in(graph: Any) -> set[str]:
    """Returns the names that the graph reads or returns, also within its nodes, where an input hides a name."""
    names = {item.name for item in graph.output} | {name for node in graph.node for name in node.input}
    for body in (body for node in graph.node for body in bodies(node)):
        names |= _read_in(body) - {item.name for item in (*body.input, *body.initializer)}
    return names


def read_graph(data: bytes, place: str, folder: Path | None = None) -> Graph:
    """Reads a model. Raises ImportRefused if it is not an ONNX model, or weights are missing.

    folder: of the file, for weights that it keeps in other files.
    """
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        advice = remedy(Path(place), "onnx", "export it again")
        raise ImportRefused(place, f"not an ONNX model ({error}); {advice}") from error
    try:
        external = load_external_data(model, folder, place)
    except StartError as error:
        if isinstance(error, ImportRefused):
            raise
        raise ImportRefused(place, str(error).removeprefix(f"{place}: ")) from error
    except (DecodeError, ValueError) as error:
        raise ImportRefused(place, f"not an ONNX model ({error}); export it again") from error
    if not model.graph.node or not model.graph.output:
        raise ImportRefused(place, "not an ONNX model with nodes and outputs; export it again")
    names = [item.name for item in (*model.graph.input, *model.graph.output)]
    if not all(isinstance(name, str) and name for name in names):  # bytes: not UTF-8
        raise ImportRefused(place, "an input or output has no name, or one that is not a string; export it again")
    return Graph(model, *read_values(model), external)


def read_values(model: Any) -> tuple[dict[str, Value], dict[str, Value]]:
    """Returns inputs and outputs by name."""
    given = {item.name for item in model.graph.initializer}
    inputs = {item.name: _value(item) for item in model.graph.input if item.name not in given}
    return inputs, {item.name: _value(item) for item in model.graph.output}


def _value(item: Any) -> Value:
    kind = item.type.tensor_type
    dims: tuple[int | str, ...] | None = None
    if kind.HasField("shape"):
        dims = tuple(
            int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else str(dim.dim_param)
            for dim in kind.shape.dim
        )
    return Value(item.name, DTYPES.get(kind.elem_type, f"type {kind.elem_type}"), dims)
