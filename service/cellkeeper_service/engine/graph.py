"""Builds the ONNX graph of a recurrent bundle: (input, state) -> (prediction, hidden, next), with everything inside.

input       float32 [T, B, F], or int32 [T, B] token ids
state, next float32 [B, S]: the tensors of a checkpoint one after another, each [layers, width]
prediction  float32 [T, B, units]
hidden      float32 [T, B, width]: the top layer
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.model.bundle import Bundle
from cellkeeper_service.model.config import Features, RecurrentConfig
from cellkeeper_service.model.tensors import cell_states

from .graph_functions import write_activation, write_transform
from .graph_rnn import write_rnn
from .graph_writer import GraphWriter, Value, floats, integers

RNN_ACTIVATIONS = {"rnn_tanh": "tanh", "rnn_relu": "relu"}


def build_graph(bundle: Bundle) -> bytes:
    """Returns the serialized ONNX model. The bundle must have a RecurrentConfig without projection."""
    config, tensors = bundle.config, bundle.tensors
    if not isinstance(config, RecurrentConfig) or config.proj_size:
        raise ValueError(f"no ONNX graph for {config.name}: ONNX cells have no projection")
    writer = GraphWriter()
    hidden, after = _layers(writer, config, tensors, _input(writer, config, tensors))
    writer.node("Identity", [hidden], name="hidden")
    writer.node("Identity", [after], name="next")
    writer.node("Identity", [_prediction(writer, config, tensors, hidden)], name="prediction")
    width = sum(state.nbytes // 4 for state in cell_states(config))
    if isinstance(config.input, Features):
        given = floats("input", "T", "B", config.input_size)
    else:
        given = integers("input", "T", "B", dtype=TensorProto.INT32)
    return writer.model(
        config.cell,
        [given, floats("state", "B", width)],
        [
            floats("prediction", "T", "B", config.output_size),
            floats("hidden", "T", "B", config.recurrent_size),
            floats("next", "B", width),
        ],
    )


def _input(writer: GraphWriter, config: RecurrentConfig, tensors: dict[str, Array]) -> str:
    source = config.input
    if not isinstance(source, Features):
        return writer.node("Gather", [writer.constant(tensors["embedding.weight"]), "input"], axis=0)
    if source.normalization is None:
        return "input"
    moved = writer.node("Sub", ["input", writer.constant(np.array(source.normalization.offset))])
    return writer.node("Div", [moved, writer.constant(np.array(source.normalization.scale))])


def _layers(writer: GraphWriter, config: RecurrentConfig, tensors: dict[str, Array], values: str) -> tuple[str, str]:
    """Writes the layers. Returns the names of the top layer [T, B, H] and of the new state [B, S]."""
    count = config.num_layers * len(cell_states(config))
    before = [f"before_{i}" for i in range(count)]
    after = [f"after_{i}" for i in range(count)]
    spread = writer.node("Unsqueeze", ["state", writer.axes(0)])
    if count == 1:
        before = [spread]
    else:
        sizes = writer.axes(*[config.hidden_size] * count)
        writer.nodes.append(helper.make_node("Split", [spread, sizes], before, axis=2))
    kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if config.bias else ()))
    for layer in range(config.num_layers):
        mine = slice(layer, None, config.num_layers)
        sequence = f"layer_{layer}"
        weights = {kind: tensors[f"rnn.{kind}_l{layer}"] for kind in kinds}
        if config.cell in RNN_ACTIVATIONS:
            results = sequence, after[layer]
            write_rnn(writer, weights, RNN_ACTIVATIONS[config.cell], values, before[layer], results)
        else:
            writer.recurrent(config.cell, weights, config.reset_after, values, before[mine], [sequence, *after[mine]])
        values = writer.node("Squeeze", [sequence, writer.axes(1)])
    joined = after[0] if count == 1 else writer.node("Concat", after, axis=2)
    return values, writer.node("Squeeze", [joined, writer.axes(0)])


def _prediction(writer: GraphWriter, config: RecurrentConfig, tensors: dict[str, Array], hidden: str) -> str:
    value = Value(hidden, config.recurrent_size, config.recurrent_size)
    for i, dense in enumerate(config.head):
        value = writer.dense(value, tensors[f"head.{i}.weight"], tensors.get(f"head.{i}.bias"))
        value = write_activation(writer, value, dense.activation)
    for transform in config.output:
        value = write_transform(writer, value, transform)
    return writer.narrow(value)
