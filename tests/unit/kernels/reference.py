"""The model in float64, straight from its definition: one session and one time step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.model.config import Features, RecurrentConfig
from numpy.typing import NDArray

from testing.bundles import Array

Vector = NDArray[np.float64]
Times = Callable[[Vector, Vector], Vector]


@dataclass
class Reference:
    """state: a row of the arena; predictions [T, units], hidden [T, width]; usable: False if an input was unusable."""

    state: Vector
    predictions: Vector
    hidden: Vector
    usable: bool


def run_reference(
    config: RecurrentConfig, tensors: dict[str, Array], state: Vector, inputs: Array, precision: Precision = "fp32"
) -> Reference:
    """inputs [T, F] or ids [T], raw. precision: that of the products' operands; nothing else is rounded."""
    round_to = ROUNDINGS[precision]

    def times(weight: Vector, x: Vector) -> Vector:
        return np.asarray(round_to(weight) @ round_to(x))

    weights = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    layers, width, size = config.num_layers, config.recurrent_size, config.hidden_size
    h = [state[layer * width : (layer + 1) * width] for layer in range(layers)]
    c_at = layers * width
    c = [
        state[c_at + layer * size : c_at + (layer + 1) * size]
        for layer in range(layers if config.cell == "lstm" else 0)
    ]
    held = state[c_at + len(c) * size :]
    hidden, predictions, usable = [], [], True
    for raw in inputs:
        if isinstance(config.input, Features):
            x = raw.astype(np.float64)
            if config.input.missing.policy == "hold":
                x = held = np.where(np.isnan(x), held, x)
            elif config.input.missing.policy == "constant":
                x = np.where(np.isnan(x), np.asarray(config.input.missing.value, np.float64), x)
            usable = usable and bool(np.isfinite(x).all())
            if config.input.normalization is not None:
                x = (x - config.input.normalization.offset) / config.input.normalization.scale
        else:
            known = 0 <= raw < config.input.vocabulary
            usable = usable and bool(known)
            x = weights["embedding.weight"][raw] if known else np.zeros(config.input_size)
        for layer in range(layers):
            if config.cell == "lstm":
                h[layer], c[layer] = _lstm(times, config, weights, layer, x, h[layer], c[layer])
            else:
                h[layer] = (
                    _gru(times, config, weights, layer, x, h[layer])
                    if config.cell == "gru"
                    else _rnn(times, config, weights, layer, x, h[layer])
                )
            x = h[layer]
        hidden.append(x)
        predictions.append(_predict(times, config, weights, x))
    return Reference(np.concatenate([*h, *c, held]), np.array(predictions), np.array(hidden), usable)


def _to_tf32(x: Vector) -> Vector:
    """Rounds to 10 bits of mantissa, halves away from zero."""
    bits = (x.astype(np.float32).view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.asarray(bits.view(np.float32).astype(np.float64))


def _to_bfloat16(x: Vector) -> Vector:
    return np.asarray(torch.from_numpy(x.astype(np.float32)).to(torch.bfloat16).to(torch.float64).numpy())


ROUNDINGS: dict[Precision, Callable[[Vector], Vector]] = {
    "fp32": lambda x: x,
    "tf32": _to_tf32,
    "bf16": _to_bfloat16,
}


def sigmoid(x: Vector) -> Vector:
    return np.asarray(1 / (1 + np.exp(-x)))


def _times(x: Vector, share: Vector) -> Vector:
    """Returns 0 where x is -inf, because the share is 0 there."""
    return np.where(np.isneginf(x), 0.0, x * share)


ACTIVATIONS: dict[str, Callable[[Vector], Any]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softplus": lambda x: np.logaddexp(0, x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: _times(x, 0.5 * (1 + np.vectorize(math.erf)(x * math.sqrt(0.5)))),
    "gelu_tanh": lambda x: _times(x, sigmoid(math.sqrt(8 / math.pi) * x * (1 + 0.044715 * x * x))),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_silu": lambda x: _times(x, np.clip(x / 6 + 0.5, 0, 1)),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "mish": lambda x: _times(x, np.tanh(np.logaddexp(0, x))),
    "relu6": lambda x: np.clip(x, 0, 6),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
    "silu": lambda x: _times(x, sigmoid(x)),
    "softsign": lambda x: np.where(np.isinf(x), np.sign(x), x / (1 + np.abs(x))),
}


def _parts(
    times: Times, config: RecurrentConfig, weights: dict[str, Vector], layer: int, kind: str, x: Vector
) -> list[Vector]:
    """Returns W x + b for each gate."""
    product = times(weights[f"rnn.weight_{kind}_l{layer}"], x)
    if config.bias:
        product = product + weights[f"rnn.bias_{kind}_l{layer}"]
    return np.split(product, config.gates)


def _lstm(
    times: Times, config: RecurrentConfig, weights: dict[str, Vector], layer: int, x: Vector, h: Vector, c: Vector
) -> tuple[Vector, Vector]:
    into, back = _parts(times, config, weights, layer, "ih", x), _parts(times, config, weights, layer, "hh", h)
    i, f, g, o = (one + other for one, other in zip(into, back, strict=True))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (times(weights[f"rnn.weight_hr_l{layer}"], h) if config.proj_size else h), c


def _gru(times: Times, config: RecurrentConfig, weights: dict[str, Vector], layer: int, x: Vector, h: Vector) -> Vector:
    into, back = _parts(times, config, weights, layer, "ih", x), _parts(times, config, weights, layer, "hh", h)
    r, z = sigmoid(into[0] + back[0]), sigmoid(into[1] + back[1])
    new = r * back[2] if config.reset_after else _parts(times, config, weights, layer, "hh", r * h)[2]
    n = np.tanh(into[2] + new)
    return np.asarray((1 - z) * n + z * h)


def _rnn(times: Times, config: RecurrentConfig, weights: dict[str, Vector], layer: int, x: Vector, h: Vector) -> Vector:
    total = _parts(times, config, weights, layer, "ih", x)[0] + _parts(times, config, weights, layer, "hh", h)[0]
    return np.asarray(np.tanh(total) if config.cell == "rnn_tanh" else np.maximum(total, 0))


def _predict(times: Times, config: RecurrentConfig, weights: dict[str, Vector], x: Vector) -> Vector:
    for i, dense in enumerate(config.head):
        x = times(weights[f"head.{i}.weight"], x) + (weights[f"head.{i}.bias"] if dense.bias else 0)
        x = ACTIVATIONS[dense.activation](x)
    for step in config.output:
        value = np.asarray(0.0 if step.value is None else step.value, np.float64)
        if step.op == "softmax":
            x = np.exp(x - x.max())
            x = x / x.sum()
        elif step.op in ("exp", "expm1", "sinh"):
            x = {"exp": np.exp, "expm1": np.expm1, "sinh": np.sinh}[step.op](x)
        else:
            x = {"scale": np.multiply, "offset": np.add, "clip_min": np.maximum}[step.op](x, value)
    return np.asarray(x)
