"""A float64 reference, written from the equations: one session, one time step, no batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from cellkeeper_service.model.config import Features, RecurrentConfig
from numpy.typing import NDArray

Array = NDArray[Any]


def reference_run(config: RecurrentConfig, tensors: Mapping[str, Array], inputs: Array) -> dict[str, Array]:
    """Runs a whole sequence: inputs [T, F] or ids [T] -> prediction [T, units], hidden [T, H], h [layers, H], c."""
    weights = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
    layers, recurrent = config.num_layers, config.recurrent_size
    h = weights.get("initial.h", np.zeros((layers, recurrent))).copy()
    c = weights.get("initial.c", np.zeros((layers, config.hidden_size))).copy()
    hidden, prediction = [], []
    for x in _prepared(config, weights, inputs):
        value = x
        for layer in range(layers):
            h[layer], c[layer] = _cell(config, weights, layer, value, h[layer], c[layer])
            value = h[layer].copy()
        hidden.append(value)
        prediction.append(_predict(config, weights, value))
    return {"prediction": np.array(prediction), "hidden": np.array(hidden), "h": h, "c": c}


def _prepared(config: RecurrentConfig, weights: Mapping[str, Array], inputs: Array) -> Array:
    if not isinstance(config.input, Features):
        return weights["embedding.weight"][inputs]
    values = np.asarray(inputs, np.float64).copy()
    missing = config.input.missing
    first = last = np.full(config.input.size, missing.value)
    for row in values:
        absent = np.isnan(row)
        if missing.policy == "hold":
            row[absent] = last[absent]
            last = row.copy()
        elif missing.policy == "constant":
            row[absent] = first[absent]
    if config.input.normalization is not None:
        values = (values - config.input.normalization.offset) / config.input.normalization.scale
    return values


def _cell(
    config: RecurrentConfig, weights: Mapping[str, Array], layer: int, x: Array, h: Array, c: Array
) -> tuple[Array, Array]:
    size = config.hidden_size
    w_ih, w_hh = weights[f"rnn.weight_ih_l{layer}"], weights[f"rnn.weight_hh_l{layer}"]
    zeros = np.zeros(len(w_ih))
    b_ih, b_hh = weights.get(f"rnn.bias_ih_l{layer}", zeros), weights.get(f"rnn.bias_hh_l{layer}", zeros)
    if config.cell == "lstm":
        i, f, g, o = np.split(w_ih @ x + b_ih + w_hh @ h + b_hh, 4)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        return (weights[f"rnn.weight_hr_l{layer}"] @ h if config.proj_size else h), c
    if config.cell == "gru":
        into = np.split(w_ih @ x + b_ih, 3)
        back = w_hh @ h + b_hh
        r, z = _sigmoid(into[0] + back[:size]), _sigmoid(into[1] + back[size : 2 * size])
        again = r * back[2 * size :] if config.reset_after else w_hh[2 * size :] @ (r * h) + b_hh[2 * size :]
        return (1 - z) * np.tanh(into[2] + again) + z * h, c
    total = w_ih @ x + b_ih + w_hh @ h + b_hh
    return (np.tanh(total) if config.cell == "rnn_tanh" else np.maximum(total, 0.0)), c


def _predict(config: RecurrentConfig, weights: Mapping[str, Array], value: Array) -> Array:
    for i, dense in enumerate(config.head):
        value = weights[f"head.{i}.weight"] @ value
        if dense.bias:
            value = value + weights[f"head.{i}.bias"]
        value = _ACTIVATIONS[dense.activation](value)
    for transform in config.output:
        if transform.op == "softmax":
            value = np.exp(value - value.max()) / np.exp(value - value.max()).sum()
        elif transform.op in ("exp", "expm1", "sinh"):
            value = {"exp": np.exp, "expm1": np.expm1, "sinh": np.sinh}[transform.op](value)
        else:
            number = np.array(transform.value)
            value = {"scale": np.multiply, "offset": np.add, "clip_min": np.maximum}[transform.op](value, number)
    return value


def _sigmoid(value: Array) -> Array:
    result: Array = 1.0 / (1.0 + np.exp(-value))
    return result


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda v: v,
    "relu": lambda v: np.maximum(v, 0.0),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda v: np.log1p(np.exp(v)),
    "elu": lambda v: np.where(v > 0, v, np.expm1(v)),
    "gelu": lambda v: v * 0.5 * (1.0 + np.vectorize(math.erf)(v / math.sqrt(2.0))),
    "gelu_tanh": lambda v: v * 0.5 * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (v + 0.044715 * v**3))),
    "hard_sigmoid": lambda v: np.clip(v / 6.0 + 0.5, 0.0, 1.0),
    "hard_silu": lambda v: v * np.clip(v / 6.0 + 0.5, 0.0, 1.0),
    "hard_tanh": lambda v: np.clip(v, -1.0, 1.0),
    "log_sigmoid": lambda v: -np.log1p(np.exp(-v)),
    "mish": lambda v: v * np.tanh(np.log1p(np.exp(v))),
    "relu6": lambda v: np.clip(v, 0.0, 6.0),
    "selu": lambda v: 1.0507009873554805 * np.where(v > 0, v, 1.6732632423543772 * np.expm1(v)),
    "silu": lambda v: v * _sigmoid(v),
    "softsign": lambda v: v / (1.0 + np.abs(v)),
}
