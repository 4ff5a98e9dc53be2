"""Runs a stack in float64, from the equations: the reference if the model's framework is not installed.

A mask compares exactly. Therefore the layers in front of it, which scale the input, are also run in float32, as
frameworks and the served graph run them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .stack import (
    INPUT,
    KERAS_2_HARD_SIGMOID,
    USUAL,
    Activate,
    Affine,
    Array,
    CausalConv,
    Convert,
    Dense,
    Embed,
    LayerNorm,
    Mask,
    Merge,
    Normalize,
    ParametricRelu,
    Recurrent,
    Stack,
    Unmask,
)

Floats = NDArray[np.float64]


def leading(stack: Stack) -> list[Normalize | Affine | Mask]:
    """Returns the layers that scale the input before anything else computes with it, and the mask behind them, if any.

    With branches: of the first branch that scales it.
    """
    at = -1
    found: list[Normalize | Affine | Mask] = []
    while not (found and isinstance(found[-1], Mask)):
        after = [n for n in range(len(stack.layers)) if at in stack.sources_of(n)]
        at = next((n for n in after if isinstance(stack.layers[n], Normalize | Affine | Mask)), -1)
        if at < 0:
            break
        found.append(stack.layers[at])  # type: ignore[arg-type]
    return found


def masked_input(stack: Stack) -> Array | None:
    """Returns a time step that the leading mask masks [F]; None if there is none, or it has no mask."""
    layers = leading(stack)
    if not layers or not isinstance(layers[-1], Mask):
        return None
    step = np.full(stack.size, layers[-1].value)
    for layer in reversed(layers[:-1]):
        if isinstance(layer, Mask):
            break
        if isinstance(layer, Normalize) and layer.stand_ins is not None:
            step = np.full(stack.size, layer.stand_ins[0])
        elif isinstance(layer, Normalize):
            step = step * layer.scale + layer.offset
        else:
            step = (step - layer.offset) / np.where(layer.scale == 0, 1.0, layer.scale)
    step = step.astype(np.float32)
    value: Any = step.astype(np.float64)
    for layer in layers[:-1]:  # a source may scale in float64
        value = value if isinstance(layer, Mask) else rescaled(layer, value, np.float64)
    exact = bool((value.astype(np.float32) == np.float32(layers[-1].value)).all())
    return step if exact and masks(stack, step) else None


def masks(stack: Stack, step: Array) -> bool:
    """Returns True if the model skips this time step, [F] or a token id. Compares as float32, as frameworks do."""
    value: Any = step
    first = stack.layers[0] if stack.layers else None
    if isinstance(first, Embed):
        return first.mask_zero and int(step) == 0
    for layer in leading(stack):
        if isinstance(layer, Mask):
            return bool((np.asarray(value, np.float32) == np.float32(layer.value)).all())
        value = rescaled(layer, np.asarray(value, np.float32), np.float32)
    return False


def rescaled(layer: Normalize | Affine, value: Array, dtype: Any) -> Array:
    """Applies the layer in float32, as the served graph does, or in float64."""
    scale: Array = np.asarray(layer.scale, dtype)
    offset: Array = np.asarray(layer.offset, dtype)
    if isinstance(layer, Affine):
        return np.asarray(value * scale + offset, dtype)
    scaled = (value - offset) / scale
    if layer.stand_ins is not None:
        before, after = (np.asarray(number, np.float32) for number in layer.stand_ins)
        scaled = np.where(value == before, after.astype(dtype), scaled)
    return np.asarray(scaled, dtype)


class Float64Run:
    """Runs one sequence, one time step at a time, keeping the state."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._mask = next((layer for layer in leading(stack) if isinstance(layer, Mask)), None)
        self._states = [_initial(layer) for layer in stack.recurrent]
        self._weights = [  # converted once: for a large model this takes longer than a time step
            {name: np.asarray(value, np.float64) for name, value in layer.weights.items()} for layer in stack.recurrent
        ]
        self._past = {id(conv): np.zeros((conv.reach, conv.weight.shape[2])) for conv in stack.convolutions}

    def step(self, x: Array) -> Floats:
        """Runs one time step: [F] (or a token id []) -> [units]."""
        values: dict[int, Any] = {INPUT: x}
        kept = True  # false: skip this time step
        states = iter(range(len(self._states)))
        for number, layer in enumerate(self._stack.layers):
            taken = [values[source] for source in self._stack.sources_of(number)]
            value = taken[0]
            if isinstance(layer, Embed):
                kept = not layer.mask_zero or int(value) != 0
                value = np.asarray(layer.weight[int(value)], np.float64)
            elif isinstance(layer, Mask):
                first = self._mask is layer
                kept = not (masks(self._stack, x) if first else (value == np.float32(layer.value)).all())
                value = np.asarray(value, np.float64) * kept
            elif isinstance(layer, Unmask):
                kept = True
            elif isinstance(layer, Recurrent):
                value = self._recurrent(layer, next(states), np.asarray(value, np.float64), kept)
            elif isinstance(layer, CausalConv):
                value = self._convolution(layer, np.asarray(value, np.float64))
            elif isinstance(layer, Merge):
                value = _merge(layer.op, [np.asarray(part, np.float64) for part in taken])
            else:
                value = apply(layer, np.asarray(value, np.float64))
            values[number] = value
        return np.asarray(values[len(self._stack.layers) - 1], np.float64)

    def _convolution(self, layer: CausalConv, x: Floats) -> Floats:
        window = np.concatenate([self._past[id(layer)], x[None]])
        self._past[id(layer)] = window[1:]
        weight = np.asarray(layer.weight, np.float64)
        value = np.einsum("uki,ki->u", weight, window[:: layer.dilation])
        return np.asarray(value if layer.bias is None else value + layer.bias, np.float64)

    def _recurrent(self, layer: Recurrent, index: int, x: Floats, kept: bool) -> Floats:
        h, c = self._states[index]
        if kept:
            h, c = self._states[index] = _cell(layer, self._weights[index], x, h, c)
        return np.zeros_like(h) if layer.zero_masked and not kept else h


def _merge(op: str, values: Sequence[Floats]) -> Floats:
    if op == "concatenate":
        return np.concatenate(values)
    if op == "average":
        return np.asarray(np.mean(values, axis=0), np.float64)
    functions = {
        "add": np.add,
        "subtract": np.subtract,
        "multiply": np.multiply,
        "maximum": np.maximum,
        "minimum": np.minimum,
    }
    return np.asarray(reduce(functions[op], values), np.float64)


def apply(layer: Normalize | Affine | LayerNorm | Dense | Activate | ParametricRelu | Convert, value: Floats) -> Floats:
    """Applies a layer without state: [..., inputs] -> [..., units]."""
    if isinstance(layer, Normalize | Affine):
        return rescaled(layer, value, np.float64)
    if isinstance(layer, Dense):
        value = value @ np.asarray(layer.weight, np.float64).T
        if layer.bias is not None:
            value = value + layer.bias
        return activate(layer.activation, value)
    if isinstance(layer, Activate):
        return activate(layer.op, value, layer.slope)
    if isinstance(layer, LayerNorm):
        value = value - value.mean(axis=-1, keepdims=True)
        value = value / np.sqrt(np.square(value).mean(axis=-1, keepdims=True) + layer.epsilon)
        value = value if layer.scale is None else value * layer.scale
        return value if layer.offset is None else value + layer.offset
    if isinstance(layer, ParametricRelu):
        return np.where(value > 0, value, np.asarray(layer.slope, np.float64) * value)
    transform = layer.transform
    if transform.op in _FUNCTIONS:
        return _FUNCTIONS[transform.op](value)
    number = np.asarray(transform.value, np.float64)
    return {"scale": np.multiply, "offset": np.add, "clip_min": np.maximum}[transform.op](value, number)


def activate(op: str, value: Floats, slope: float = 1.0) -> Floats:
    """Applies one of stack.ACTIVATIONS."""
    if op == "leaky_relu":
        return np.where(value > 0, value, slope * value)
    if op == "elu":
        return np.where(value > 0, value, slope * np.expm1(np.minimum(value, 0.0)))
    return _FUNCTIONS[op](value)


def _cell(layer: Recurrent, weights: Mapping[str, Floats], x: Floats, h: Floats, c: Floats) -> tuple[Floats, Floats]:
    ways = [partial(activate, name) for name in layer.activations or USUAL[layer.cell]]
    size = layer.hidden_size
    into, back = weights["weight_ih"] @ x, weights["weight_hh"] @ h
    if "bias_ih" in weights:
        into, back = into + weights["bias_ih"], back + weights["bias_hh"]
    if layer.cell == "lstm":
        i, f, g, o = np.split(into + back, 4)
        c = ways[0](f) * c + ways[0](i) * ways[1](g)
        h = ways[0](o) * ways[1](c)
        return (weights["weight_hr"] @ h if "weight_hr" in weights else h), c
    if layer.cell == "gru":
        r, z = np.split(ways[0]((into + back)[: 2 * size]), 2)
        if layer.reset_after:
            again = r * back[2 * size :]
        else:
            again = weights["weight_hh"][2 * size :] @ (r * h)
            again = again + weights["bias_hh"][2 * size :] if "bias_hh" in weights else again
        return (1 - z) * ways[1](into[2 * size :] + again) + z * h, c
    return ways[0](into + back), c


def _initial(layer: Recurrent) -> tuple[Floats, Floats]:
    h = np.asarray(layer.initial.get("h", np.zeros(layer.width)), np.float64)
    return h, np.asarray(layer.initial.get("c", np.zeros(layer.hidden_size)), np.float64)


def _sigmoid(value: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * value)), np.float64)


def _log_softmax(value: Floats) -> Floats:
    moved = value - value.max(axis=-1, keepdims=True)
    return np.asarray(moved - np.log(np.exp(moved).sum(axis=-1, keepdims=True)), np.float64)


_erf = np.vectorize(math.erf, otypes=[np.float64])

_FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "linear": lambda v: v,
    "relu": lambda v: np.maximum(v, 0.0),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda v: np.logaddexp(v, 0.0),
    "softmax": lambda v: np.exp(_log_softmax(v)),
    "exponential": np.exp,
    "hard_sigmoid": lambda v: np.clip(v / 6.0 + 0.5, 0.0, 1.0),
    KERAS_2_HARD_SIGMOID: lambda v: np.clip(0.2 * v + 0.5, 0.0, 1.0),
    "softsign": lambda v: v / (1.0 + np.abs(v)),
    "gelu": lambda v: 0.5 * v * (1.0 + _erf(v * math.sqrt(0.5))),
    "gelu_tanh": lambda v: 0.5 * v * (1.0 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    "hard_silu": lambda v: v * np.clip(v / 6.0 + 0.5, 0.0, 1.0),
    "hard_tanh": lambda v: np.clip(v, -1.0, 1.0),
    "log_sigmoid": lambda v: -np.logaddexp(-v, 0.0),
    "log_softmax": _log_softmax,
    "mish": lambda v: v * np.tanh(np.logaddexp(v, 0.0)),
    "relu6": lambda v: np.clip(v, 0.0, 6.0),
    "selu": lambda v: 1.0507009873554805 * np.where(v > 0, v, 1.6732632423543772 * np.expm1(np.minimum(v, 0.0))),
    "silu": lambda v: v * _sigmoid(v),
    "tanh_shrink": lambda v: v - np.tanh(v),
    "exp": np.exp,
    "expm1": np.expm1,
    "sinh": np.sinh,
}
