"""Writes a stack's activations as ONNX nodes."""

from __future__ import annotations

from cellkeeper_service.engine.activation_nodes import activation_node

from .graph_writer import GraphWriter, Value
from .stack import KERAS_2_HARD_SIGMOID

_OVER_UNITS = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}


def write_activation(writer: GraphWriter, value: Value, op: str, slope: float = 1.0) -> Value:
    """Writes one of stack.ACTIVATIONS, KERAS_2_HARD_SIGMOID, exp or sinh. slope: of leaky_relu and elu."""
    if op == "linear":
        return value
    if op in _OVER_UNITS:
        return Value(writer.node(_OVER_UNITS[op], [writer.narrow(value)], axis=2), value.width, value.width)
    value = writer.padded(value)
    if op == KERAS_2_HARD_SIGMOID:
        return value._replace(name=writer.node("HardSigmoid", [value.name], alpha=0.2, beta=0.5))
    return value._replace(name=activation_node(op, value.name, writer.node, writer.number, slope))
