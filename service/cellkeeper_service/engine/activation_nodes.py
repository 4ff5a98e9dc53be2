"""Element-wise activations as ONNX nodes, for the heads of recurrent bundles and for imported layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Node = Callable[..., str]  # (op, inputs, **attributes) -> the name of its output
Number = Callable[[float], str]  # -> the name of a float32 scalar

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
_SLOPED = {"leaky_relu": "LeakyRelu", "elu": "Elu"}
_BOUNDS = {"relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0)}


def activation_node(op: str, x: str, node: Node, number: Number, slope: float = 1.0) -> str:
    """Adds the nodes that compute op(x), and returns the name of the result. slope: alpha of leaky_relu and elu."""
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
        "gelu": lambda: _gelu(x, node("Erf", [node("Mul", [x, number(math.sqrt(0.5))])]), node, number),
        "gelu_tanh": lambda: _gelu(x, node("Tanh", [_gelu_argument(x, node, number)]), node, number),
    }
    made: str = written[op]()
    return made


def _gelu(x: str, share: str, node: Node, number: Number) -> str:
    half = node("Mul", [x, number(0.5)])
    return node("Mul", [half, node("Add", [share, number(1.0)])])


def _gelu_argument(x: str, node: Node, number: Number) -> str:
    """Computes sqrt(2 / pi) (x + 0.044715 x ** 3)."""
    square = node("Mul", [x, x])
    factor = node("Add", [node("Mul", [square, number(0.044715)]), number(1.0)])
    return node("Mul", [node("Mul", [x, number(math.sqrt(2 / math.pi))]), factor])
