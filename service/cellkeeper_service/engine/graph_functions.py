"""Activations and output transforms as ONNX nodes, for the heads of recurrent bundles and for imported layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cellkeeper_service.model.config import Transform

from .graph_writer import GraphWriter, Value

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
_HARD = {"hard_sigmoid": 1 / 6, "keras_2_hard_sigmoid": 0.2}
_BOUNDS = {"relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0)}


def write_activation(writer: GraphWriter, value: Value, op: str, slope: float = 1.0) -> Value:
    """Writes op(x), also for exp and sinh. slope: of leaky_relu and elu."""
    if op == "linear":
        return value
    if op in _OVER_UNITS:
        return Value(writer.node(_OVER_UNITS[op], [writer.narrow(value)], axis=2), value.width, value.width)
    value = writer.padded(value)
    return value._replace(name=_activation(writer, value.name, op, slope))


def _activation(writer: GraphWriter, x: str, op: str, slope: float) -> str:
    node, number = writer.node, writer.number
    if op in _SINGLE:
        return node(_SINGLE[op], [x])
    if op in _SLOPED:
        return node(_SLOPED[op], [x], alpha=slope)
    if op in _HARD:
        return node("HardSigmoid", [x], alpha=_HARD[op], beta=0.5)
    if op in _BOUNDS:
        return node("Clip", [x, *map(number, _BOUNDS[op])])
    written: dict[str, Any] = {
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
    """Computes sqrt(2 / pi) (x + 0.044715 x ** 3)."""
    node, number = writer.node, writer.number
    square = node("Mul", [x, x])
    factor = node("Add", [node("Mul", [square, number(0.044715)]), number(1.0)])
    return node("Mul", [node("Mul", [x, number(math.sqrt(2 / math.pi))]), factor])


def write_transform(writer: GraphWriter, value: Value, transform: Transform) -> Value:
    """Writes one step back to the user's units."""
    if transform.op in ("softmax", "exp", "sinh"):
        return write_activation(writer, value, transform.op)
    value = writer.padded(value)
    if transform.op == "expm1":  # 2 sinh(x/2) exp(x/2): exp(x) - 1 would lose digits near 0
        half = writer.node("Mul", [value.name, writer.number(0.5)])
        product = writer.node("Mul", [writer.node("Sinh", [half]), writer.node("Exp", [half])])
        return value._replace(name=writer.node("Mul", [product, writer.number(2.0)]))
    numbers = np.broadcast_to(np.asarray(transform.value, np.float32), (value.width,))
    op = {"scale": "Mul", "offset": "Add", "clip_min": "Max"}[transform.op]
    return value._replace(name=writer.node(op, [value.name, writer.vector(numbers, value.columns)]))
