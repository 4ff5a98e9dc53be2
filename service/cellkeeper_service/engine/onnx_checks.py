"""Refuses ONNX graphs that contain what cannot be streamed: references to files, random numbers, backward layers.

The trial at load (exactness.py) finds what shows only in the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from cellkeeper_service.errors import StartError
from cellkeeper_service.model.config import GraphConfig

from .batch_axis.shapes import graphs_within, used_names

RANDOM = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Sampling",
)
DROPOUTS = {"Dropout": 2, "BitmaskDropout": 2, "BiasDropout": 4, "BitmaskBiasDropout": 4}
"""By operator: the index of the input that says whether the model is in training mode."""
RECURRENT = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM", "AttnLSTM")
FIRST_STATE = 5  # inputs 5 and 6 of LSTM, GRU and RNN are states
COUPLING = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
"""Operators that use one scale for all rows of a tensor."""
INTEGER_PRODUCTS = (
    *("ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger"),
    *("MatMulIntegerToFloat", "MatMulNBits", "QAttention", "QGemm", "QLinearConv", "QLinearMatMul"),
)
"""Operators that multiply integers. Of DequantizeLinear and the product after it, onnxruntime makes one of these."""


def read_model(model: bytes, place: str) -> Any:
    """Parses an ONNX model, which may keep weights in other files. Raises StartError for anything else."""
    try:
        return onnx.load_model_from_string(model)
    except DecodeError as error:
        raise StartError(f"{place}: not an ONNX model ({error}); export it again") from error


def parse_graph(model: bytes, place: str) -> Any:
    """Parses an ONNX model. Raises StartError for anything else, and for a model that would read other files."""
    parsed = read_model(model, place)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors_of_model(parsed)):
        raise StartError(f"{place}: keeps weights in other files; save it with its weights inside")
    return parsed


def refuse_operators(model: Any, config: GraphConfig, place: str) -> None:
    """Raises StartError for operators that cannot be streamed, whatever their weights.

    A backward recurrent layer is refused if the graph has a time axis. In a graph of one time step, it is refused if
    its state is carried from step to step; over a window within the step, it does no harm.
    """
    timed = config.layout != "step"
    carried = _reached(model.graph, {state.input for state in config.states})
    for node, graph in _nodes(model):
        named = f"{place}: node {node.name or node.output[0]!r} ({node.op_type})"
        if node.op_type in RANDOM:
            raise StartError(
                f"{named}: draws random numbers, so a retried step would get other outputs; remove it, or pass its "
                "values as inputs"
            )
        if node.op_type in DROPOUTS and not _is_false(node, DROPOUTS[node.op_type], [model.graph, graph]):
            raise StartError(
                f"{named}: drops values at random in training mode; export the model in evaluation mode (model.eval(), "
                "and F.dropout(x, p, self.training) in its forward)"
            )
        attributes = {attribute.name: attribute for attribute in node.attribute}
        training = "training_mode" in attributes and attributes["training_mode"].i != 0
        # before opset 14, further outputs (the batch's statistics) mark training mode, instead of an attribute
        if node.op_type == "BatchNormalization" and (training or any(node.output[1:])):
            raise StartError(
                f"{named}: normalises by the batch's statistics in training mode; export the model in evaluation mode "
                "(model.eval())"
            )
        if node.op_type in RECURRENT and "direction" in attributes:
            direction = attributes["direction"].s.decode("utf-8", "replace").lower()
            harmless = not timed and graph is model.graph and not carried & set(node.input[FIRST_STATE:])
            if direction in ("reverse", "bidirectional") and not harmless:
                raise StartError(
                    f"{named}: direction {direction}: starts at the end of the sequence, which a stream has not "
                    "reached; train and export it forward"
                )


def multiplies_integers(model: Any) -> bool:
    """Returns True if onnxruntime may multiply integers when it runs the model."""
    return any(node.op_type in INTEGER_PRODUCTS for node, _ in _nodes(model))


def coupling_operators(model: bytes) -> list[str]:
    """Returns the types of operators in the graph that use one scale for all rows of a tensor."""
    nodes = _nodes(onnx.load_model_from_string(model))
    return sorted({node.op_type for node, _ in nodes if node.op_type in COUPLING})


def graphs_of_model(model: Any) -> Iterator[Any]:
    """Yields the graph, the functions, and the graphs inside their nodes."""
    for graph in (model.graph, *model.functions):
        yield from graphs_within(graph)


def _nodes(model: Any) -> Iterator[tuple[Any, Any]]:
    """Returns every node with the graph that contains it."""
    return ((node, graph) for graph in graphs_of_model(model) for node in graph.node)


def tensors_of_model(model: Any) -> Iterator[Any]:
    """Yields every tensor whose values are in the model, wherever it is."""
    for graph in graphs_of_model(model):
        yield from getattr(graph, "initializer", ())  # functions have none
        sparse = list(getattr(graph, "sparse_initializer", ()))
        for node in graph.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                sparse += (attribute.sparse_tensor, *attribute.sparse_tensors)
        for tensor in sparse:
            yield from (tensor.values, tensor.indices)


def _reached(graph: Any, names: Iterable[str]) -> set[str]:
    """Returns the values that are computed from `names`, except those computed from shapes alone."""
    reached = set(names)
    for node in graph.node:  # in topological order, as ONNX requires
        if node.op_type != "Shape" and reached & used_names([node]):
            reached |= {name for name in node.output if name}
    return reached


def _is_false(node: Any, number: int, graphs: Iterable[Any]) -> bool:
    """Returns True if the node's input `number` is left out, or is a constant that is false.

    graphs: where its name may be defined; the last counts.
    """
    if len(node.input) <= number or not node.input[number]:
        return True
    known: dict[str, Any] = {}
    for graph in graphs:
        known |= {tensor.name: tensor for tensor in getattr(graph, "initializer", ())}
        for inner in graph.node:
            if inner.op_type == "Constant":
                known |= _constant(inner)
    tensor = known.get(node.input[number])
    return tensor is not None and not numpy_helper.to_array(tensor).any()


def _constant(node: Any) -> Mapping[str, Any]:
    values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
    return dict(zip(node.output, values, strict=False))
