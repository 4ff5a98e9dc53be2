"""Infers the types of a graph's tensors, including shapes, with ONNX's own inference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

import onnx
from onnx import helper, numpy_helper, shape_inference

from .constants import FEW, UNREADABLE
from .placement import Shape

Types = dict[str, Any]
"""onnx.TypeProto by name."""


def infer(
    graph: Any,
    opsets: Any,
    ir_version: int,
    around: Mapping[str, Any],
    given: Mapping[str, Any],
    constants: Mapping[str, Any],
    start: int = 0,
) -> Types:
    """Returns the types of the tensors made from node `start` on, and of those that they use, as far as known.

    around: types of earlier tensors, and of those of the enclosing graph. given: types of the graph's inputs.
    constants: numpy arrays by name.
    """
    part = onnx.GraphProto()
    part.name = "shapes"
    part.node.extend(node for node in graph.node[start:] if node.output[0] not in constants)
    for node in part.node:
        _forget(node)
    used = used_names(part.node) | {value.name for value in graph.output}
    made = {name for node in part.node for name in node.output}
    inputs = {value.name: value.type for value in graph.input} | dict(given)
    for tensor in graph.initializer:
        if tensor.name in used:
            inputs.setdefault(tensor.name, helper.make_tensor_type_proto(tensor.data_type, tensor.dims))
            if prod(tensor.dims) <= FEW:
                part.initializer.append(tensor)
    for name in used - made - set(inputs):
        if name in constants:
            tensor = numpy_helper.from_array(constants[name], name)
            part.initializer.append(tensor)
            inputs[name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        elif name in around:
            inputs[name] = around[name]
    part.input.extend(helper.make_value_info(name, kind) for name, kind in inputs.items())
    part.output.extend(
        helper.make_value_info(value.name, without_shape(value.type)) for value in graph.output if value.name in made
    )
    model = helper.make_model(part, opset_imports=opsets, ir_version=ir_version)
    try:
        found = _types(shape_inference.infer_shapes(model, data_prop=True))
        if sum(_pass_on(node, inputs | found) for node in model.graph.node):
            found = _types(shape_inference.infer_shapes(model, data_prop=True))
    except UNREADABLE:
        return inputs
    return inputs | found


def _types(model: Any) -> Types:
    return {value.name: value.type for value in (*model.graph.value_info, *model.graph.output)}


def _pass_on(node: Any, types: Mapping[str, Any]) -> bool:
    """Replaces a node that leaves a list of sizes unchanged by a Cast, through which inference follows their values.
    Returns True if it did. torch's exporter puts such a Reshape after each LSTM."""
    if node.op_type not in ("Identity", "Reshape"):
        return False
    before = types.get(node.input[0])
    shape = shape_of(before)
    if before is None or shape is None or len(shape) > 1 or shape_of(types.get(node.output[0])) != shape:
        return False
    if before.tensor_type.elem_type != onnx.TensorProto.INT64:
        return False
    node.CopyFrom(helper.make_node("Cast", node.input[:1], node.output, name=node.name, to=onnx.TensorProto.INT64))
    return True


def shape_of(kind: Any) -> Shape | None:
    """Returns the shape of a type; None unless all of it is known."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    if any(not dim.HasField("dim_value") or dim.dim_value < 1 for dim in dims):
        return None
    return tuple(dim.dim_value for dim in dims)


def without_shape(kind: Any) -> Any:
    """Returns a copy of a type without its shape."""
    other = onnx.TypeProto()
    other.CopyFrom(kind)
    if other.HasField("tensor_type"):
        other.tensor_type.ClearField("shape")
    return other


def bodies(node: Any) -> Iterator[Any]:
    """Yields the graphs inside a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs_within(graph: Any) -> Iterator[Any]:
    """Yields the graph, and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs_within(body)


def _forget(node: Any) -> None:
    """Drops the shapes inside a node, which may be for the batch size with which the file was exported."""
    for body in bodies(node):
        body.ClearField("value_info")
        for inner in body.node:
            _forget(inner)


def used_names(nodes: Iterable[Any]) -> set[str]:
    """Returns the names that the nodes use, also those that graphs inside them take from around."""
    names = set()
    for node in nodes:
        names |= set(node.input)
        for body in bodies(node):
            names |= used_names(body.node) | {value.name for value in body.output}
    return names - {""}
