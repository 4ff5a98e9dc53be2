"""Keras' LSTM, GRU and SimpleRNN, and CuDNNLSTM and CuDNNGRU of Keras 2: transposes weights, puts gates into PyTorch's
order, and reads activations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cellkeeper_service.model.config import GATES

from ..refusal import ImportRefused, NotRead
from ..stack import ACTIVATIONS, CELL_ACTIVATIONS, KERAS_2_HARD_SIGMOID, Array, Layer, Recurrent
from .file import KerasFile, layer_weights, snake_case
from .topology import KerasLayer, refuse_custom

_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}
NAMES = tuple(name for name in ACTIVATIONS if name != "gelu_tanh")
_CELLS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN"}
_CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}  # of Keras 2
RECURRENT = ("LSTM", "GRU", "SimpleRNN", *_CUDNN)


def read_cells(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    """Reads keras.layers.RNN around a known cell, or around StackedRNNCells of known cells: one layer for each cell."""
    cell = _entry(layer, layer.config.get("cell"))
    stacked = cell["class_name"] == "StackedRNNCells"
    entries = cell["config"].get("cells") if stacked else [cell]
    if not isinstance(entries, list) or not entries:
        raise ImportRefused(layer.place, "cells: expected a list of cells")
    counts: dict[str, int] = {}
    layers: list[Layer] = []
    for entry in (_entry(layer, item) for item in entries):
        kind = entry["class_name"]
        if kind not in _CELLS:
            raise NotRead(layer.place, f"wraps the cell {kind}, expected one of {', '.join(_CELLS)}")
        group = snake_case(kind)
        counts[group] = counts.get(group, -1) + 1
        number = f"_{counts[group]}" if counts[group] else ""
        inner = replace(
            layer,
            kind=_CELLS[kind],
            config={**layer.config, **entry["config"]},
            holder=layer.kind,
            within=("cell", "cells", group + number) if stacked else ("cell",),
            cell=str(entry["config"].get("name", "")) if stacked else "",
        )
        layers += read_recurrent(file, inner)
    return layers


def _entry(layer: KerasLayer, value: object) -> dict[str, Any]:
    """Returns a Keras class with its config. Raises ImportRefused for other classes."""
    entry = value if isinstance(value, dict) else {}
    if not isinstance(entry.get("class_name"), str) or not isinstance(entry.get("config"), dict):
        raise ImportRefused(layer.place, f"cell: got {str(value)[:80]}, expected a cell's config")
    refuse_custom(entry, f"{layer.place}: cell {entry['class_name']}")
    return entry


def read_recurrent(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    """Reads one layer. Raises ImportRefused if it runs backwards, or its weights do not match its config."""
    config = layer.config
    if config.get("go_backwards"):
        raise ImportRefused(layer.place, "go_backwards: it starts at the end, which a stream has not reached")
    if config.get("time_major"):
        raise ImportRefused(
            layer.place,
            "time_major: got true, expected false; make the model again without it, and give it the old one's weights "
            "(new.set_weights(old.get_weights())): they are the same",
        )
    biased = bool(config.get("use_bias", True))
    weights = layer_weights(file, layer, ["kernel", "recurrent_kernel", *(["bias"] if biased else [])])
    kernel, back = weights["kernel"], weights["recurrent_kernel"]
    units = int(back.shape[0]) if back.ndim == 2 else 0
    if type(config.get("units")) is int and config["units"] != units:
        raise ImportRefused(
            layer.place,
            f"recurrent_kernel: got shape {list(back.shape)}, expected {config['units']} units as configured",
        )
    if kernel.ndim != 2 or back.ndim != 2:
        raise ImportRefused(layer.place, f"kernel: got shape {list(kernel.shape)}, expected a matrix")
    kind = _CUDNN.get(layer.kind, layer.kind)
    if layer.kind in _CUDNN:
        weights = _from_cudnn(layer, weights, units)
        kernel, back = weights["kernel"], weights["recurrent_kernel"]
    activation = read_activation(layer, "activation", "tanh", file)
    cell, reset_after = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn_tanh"}[kind], True
    if layer.kind == "SimpleRNN":
        cell = "rnn_relu" if activation == "relu" else "rnn_tanh"
        activations: tuple[str, ...] = (activation,)
    else:
        activations = (read_activation(layer, "recurrent_activation", "sigmoid", file), activation)
    for name in activations:
        if name not in CELL_ACTIVATIONS:
            raise NotRead(layer.place, f"activation {name}, expected one of {', '.join(CELL_ACTIVATIONS)}")
    if cell == "gru":
        reset_after = _reset_after(layer, weights.get("bias"))
    made = {
        "weight_ih": _turned(kernel.T, cell, units),
        "weight_hh": _turned(back.T, cell, units),
        **_biases(layer, weights.get("bias"), cell, units, reset_after),
    }
    zero_masked = bool(config.get("zero_output_for_mask", False))
    return [Recurrent(layer.place, cell, units, made, reset_after, activations, zero_masked=zero_masked)]


def _from_cudnn(layer: KerasLayer, weights: dict[str, Array], units: int) -> dict[str, Array]:
    """Returns the weights of CuDNNLSTM or CuDNNGRU as those of LSTM or GRU have them.

    They hold each gate's matrices as cuDNN reads them, which is transposed, and a bias for the input and one for the
    state.
    """
    kernel, back, bias = (weights[name] for name in ("kernel", "recurrent_kernel", "bias"))
    count = GATES[_CUDNN[layer.kind].lower()]
    expected = {"kernel": (len(kernel), count * units), "recurrent_kernel": (units, count * units)}
    for name, shape in {**expected, "bias": (2 * count * units,)}.items():
        if weights[name].shape != shape:
            raise ImportRefused(layer.place, f"{name}: got shape {list(weights[name].shape)}, expected {list(shape)}")
    gates = [gate.reshape(units, -1).T for gate in np.split(kernel, count, axis=1)]
    states = [gate.T for gate in np.split(back, count, axis=1)]
    both = bias.reshape(2, -1)
    return {
        "kernel": np.hstack(gates),
        "recurrent_kernel": np.hstack(states),
        "bias": both if layer.kind == "CuDNNGRU" else both.sum(axis=0),
    }


def read_activation(layer: KerasLayer, key: str, default: str, file: KerasFile) -> str:
    """Returns one of NAMES, or KERAS_2_HARD_SIGMOID. Raises ImportRefused."""
    value: Any = layer.config.get(key, default)
    if isinstance(value, dict) and value.get("module") in ("keras.activations", "keras.src.activations.activations"):
        value = value.get("config")
    value = "linear" if value is None else value
    name = _ALIASES.get(value, value) if isinstance(value, str) else None
    if name not in NAMES:
        raise NotRead(layer.place, f"{key}: got {str(value)[:80]!r}, expected one of {', '.join(NAMES)}")
    if name == "hard_sigmoid" and not file.version:
        raise ImportRefused(
            layer.place,
            f"{key}: hard_sigmoid, which Keras 2 and 3 compute differently, in a file without keras_version",
        )
    if name == "hard_sigmoid" and file.version < (3,):
        return KERAS_2_HARD_SIGMOID
    return str(name)


def _reset_after(layer: KerasLayer, bias: Array | None) -> bool:
    """Returns reset_after. Keras before 2.3 did not write it; there the bias' rank shows it."""
    said = layer.config.get("reset_after")
    if isinstance(said, bool):
        return said
    if bias is None:
        raise ImportRefused(
            layer.place, "reset_after: missing, with no bias to infer it from; save the model with a newer Keras"
        )
    return bias.ndim == 2


def _biases(layer: KerasLayer, bias: Array | None, cell: str, units: int, reset_after: bool) -> dict[str, Array]:
    if bias is None:
        return {}
    gates = GATES[cell] * units
    expected = (2, gates) if cell == "gru" and reset_after else (gates,)
    if bias.shape != expected:
        raise ImportRefused(layer.place, f"bias: got shape {list(bias.shape)}, expected {list(expected)}")
    first, second = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    return {"bias_ih": _turned(first, cell, units), "bias_hh": _turned(second, cell, units)}


def _turned(values: Array, cell: str, units: int) -> Array:
    """Reorders a GRU's gates from Keras' z, r, h to PyTorch's r, z, n. An LSTM's i, f, c, o already match."""
    if cell != "gru" or len(values) != 3 * units:
        return values
    return np.concatenate([values[units : 2 * units], values[:units], values[2 * units :]])
