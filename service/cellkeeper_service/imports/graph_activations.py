"""The activations of a stack as ONNX nodes."""

from __future__ import annotations

import math
from typing import Any

from .graph_writer import GraphWriter, Value
from .stack import OVER_UNITS

_SINGLE = {
    "relu": "Relu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "selu": "Selu",
    "exponential": "Exp",
    "exp": "Exp",
    "sinh": "Sinh",
    "hard_silu": "HardSwish",
}
_OVER_UNITS = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
_SLOPED = {"leaky_relu": "LeakyRelu", "elu": "Elu"}
_BOUNDS = {"relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0)}


def write_activation(writer: GraphWriter, value: Value, op: str, slope: float = 1.0) -> Value:
    """One of stack.ACTIVATIONS, or exp or sinh. slope: of leaky_relu and elu."""
    if op == "linear":
        return value
    if op in OVER_UNITS:
        return Value(writer.node(_OVER_UNITS[op], [writer.narrow(value)], axis=2), value.width, value.width)
    value = writer.padded(value)
    return value._replace(name=_elementwise(writer, value.name, op, slope))


def _elementwise(writer: GraphWriter, x: str, op: str, slope: float) -> str:
    node, number = writer.node, writer.number
    if op in _SINGLE:
        return node(_SINGLE[op], [x])
    if op in _SLOPED:
        return node(_SLOPED[op], [x], alpha=slope)
    if op in _BOUNDS:
        return node("Clip", [x, *map(number, _BOUNDS[op])])
    written: dict[str, Any] = {
        "hard_sigmoid": lambda: node("HardSigmoid", [x], alpha=1 / 6, beta=0.5),
        "silu": lambda: node("Mul", [x, node("Sigmoid", [x])]),
        "mish": lambda: node("Mul", [x, node("Tanh", [node("Softplus", [x])])]),
        "tanh_shrink": lambda: node("Sub", [x, node("Tanh", [x])]),
        "log_sigmoid": lambda: node("Neg", [node("Softplus", [node("Neg", [x])])]),
        "gelu": lambda: _gelu(writer, x, node("Erf", [node("Mul", [x, number(math.sqrt(0.5))])])),
        "gelu_tanh": lambda: _gelu(writer, x, node("Tanh", [_gelu_argument(writer, x)])),
    }
    made: str = written[op]()
    return made


def _gelu(writer: GraphWriter, x: str, share: str) -> str:
    half = writer.node("Mul", [x, writer.number(0.5)])
    return writer.node("Mul", [half, writer.node("Add", [share, writer.number(1.0)])])


def _gelu_argument(writer: GraphWriter, x: str) -> str:
    """sqrt(2 / pi) (x + 0.044715 x ** 3)."""
    square = writer.node("Mul", [x, x])
    factor = writer.node("Add", [writer.node("Mul", [square, writer.number(0.044715)]), writer.number(1.0)])
    scaled = writer.node("Mul", [x, writer.number(math.sqrt(2 / math.pi))])
    return writer.node("Mul", [scaled, factor])
