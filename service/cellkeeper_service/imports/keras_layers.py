"""Keras layers as layers of a stack. What has no place in a stream is refused, with the layer's name and the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .keras_file import KerasFile
from .keras_topology import KerasLayer
from .keras_weights import layer_weights
from .refusal import ImportRefused
from .stack import CELL_ACTIVATIONS, Activate, Affine, Array, Dense, Embed, Layer, Mask, Normalize, Recurrent

WHOLE_SEQUENCE = "needs the whole sequence, of which a stream has seen the past only"
NOT_STREAMED = {
    "Bidirectional": "the backward direction starts at the end, which a stream has not reached",
    **dict.fromkeys(
        (
            "Attention",
            "AdditiveAttention",
            "MultiHeadAttention",
            "GroupedQueryAttention",
            "GlobalAveragePooling1D",
            "GlobalMaxPooling1D",
            "Flatten",
            "Reshape",
            "Permute",
        ),
        WHOLE_SEQUENCE,
    ),
    **dict.fromkeys(("Conv1D", "MaxPooling1D", "AveragePooling1D"), "looks at a window of time steps"),
    "RepeatVector": "repeats the last time step, which a stream has not reached",
    "Lambda": "is code, which is not run",
}
_IGNORED = (
    "InputLayer",
    "Dropout",
    "SpatialDropout1D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
)
_DTYPES = ("float32", "float64")
_NAMED = {
    "linear": "linear",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "softplus": "softplus",
    "softsign": "softsign",
    "softmax": "softmax",
    "exponential": "exponential",
    "elu": "elu",
    "hard_sigmoid": "hard_sigmoid",
}


def read_layer(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    """None, one or two layers of a stack. Scales and offsets may be single numbers: shape []."""
    if layer.kind in NOT_STREAMED:
        raise ImportRefused(layer.place, NOT_STREAMED[layer.kind])
    if layer.kind not in _READERS and layer.kind not in _IGNORED:
        known = ", ".join(sorted({*_READERS, *_IGNORED}))
        raise ImportRefused(layer.place, f"no layer that can be imported, expected one of {known}")
    dtype = _dtype(layer)
    if layer.kind not in _IGNORED and dtype not in _DTYPES:
        raise ImportRefused(layer.place, f"computes in {dtype}, expected float32")
    return [] if layer.kind in _IGNORED else _READERS[layer.kind](file, layer)


def _dtype(layer: KerasLayer) -> str:
    dtype = layer.config.get("dtype", "float32")
    if isinstance(dtype, dict):
        inner = dtype.get("config")
        dtype = inner.get("name", "?") if isinstance(inner, dict) else "?"
    return str(dtype or "float32")


def _recurrent(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    config = layer.config
    if config.get("go_backwards"):
        raise ImportRefused(layer.place, "go_backwards: it starts at the end, which a stream has not reached")
    if config.get("time_major"):
        raise ImportRefused(layer.place, "time_major: got true, expected false")
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
    activation = _activation(layer, "activation", "tanh", file)
    cell, reset_after = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn_tanh"}[layer.kind], True
    if layer.kind == "SimpleRNN":
        cell = "rnn_relu" if activation == "relu" else "rnn_tanh"
        activations: tuple[str, ...] = (activation,)
    else:
        activations = (_activation(layer, "recurrent_activation", "sigmoid", file), activation)
    for name in activations:
        if name not in CELL_ACTIVATIONS:
            raise ImportRefused(layer.place, f"activation {name}, expected one of {', '.join(CELL_ACTIVATIONS)}")
    if cell == "gru":
        reset_after = _reset_after(layer, weights.get("bias"))
    made = {
        "weight_ih": _turned(kernel.T, cell, units),
        "weight_hh": _turned(back.T, cell, units),
        **_biases(layer, weights.get("bias"), cell, units, reset_after),
    }
    zero_masked = bool(config.get("zero_output_for_mask", False))
    return [Recurrent(layer.place, cell, units, made, reset_after, activations, zero_masked=zero_masked)]


def _reset_after(layer: KerasLayer, bias: Array | None) -> bool:
    """Keras before 2.3 wrote no reset_after; the bias tells it."""
    said = layer.config.get("reset_after")
    if isinstance(said, bool):
        return said
    if bias is None:
        raise ImportRefused(
            layer.place, "reset_after: missing, and no bias to tell it; save the model with a newer Keras"
        )
    return bias.ndim == 2


def _biases(layer: KerasLayer, bias: Array | None, cell: str, units: int, reset_after: bool) -> dict[str, Array]:
    if bias is None:
        return {}
    gates = {"lstm": 4, "gru": 3}.get(cell, 1) * units
    expected = (2, gates) if cell == "gru" and reset_after else (gates,)
    if bias.shape != expected:
        raise ImportRefused(layer.place, f"bias: got shape {list(bias.shape)}, expected {list(expected)}")
    first, second = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    return {"bias_ih": _turned(first, cell, units), "bias_hh": _turned(second, cell, units)}


def _turned(values: Array, cell: str, units: int) -> Array:
    """Keras has the gates i, f, c, o as PyTorch, but z, r, h of a GRU."""
    if cell != "gru" or len(values) != 3 * units:
        return values
    return np.concatenate([values[units : 2 * units], values[:units], values[2 * units :]])


def _dense(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    names = ["kernel", *(["bias"] if layer.config.get("use_bias", True) else [])]
    weights = layer_weights(file, layer, names)
    if layer.config.get("quantization_config"):
        raise ImportRefused(layer.place, "quantized, expected float32 weights")
    weight = weights["kernel"].T
    return [Dense(layer.place, weight, weights.get("bias"), _activation(layer, "activation", "linear", file))]


def _time_distributed(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    inner = layer.config.get("layer")
    kind = inner.get("class_name") if isinstance(inner, dict) else None
    config = inner.get("config") if isinstance(inner, dict) else None
    if kind in _IGNORED:
        return []
    if kind != "Dense" or not isinstance(config, dict):
        raise ImportRefused(layer.place, f"around {kind}, expected Dense")
    return _dense(file, KerasLayer(layer.place, layer.name, layer.kind, config, layer.number))


def _embedding(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    weights = layer_weights(file, layer, ["embeddings"])
    return [Embed(layer.place, weights["embeddings"], bool(layer.config.get("mask_zero", False)))]


def _normalization(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    axis = layer.config.get("axis", -1)
    axes = axis if isinstance(axis, list | tuple) else [] if axis is None else [axis]
    if list(axes) not in ([-1], [2], []):
        raise ImportRefused(
            layer.place, f"axis: got {axis}, expected -1 or None: one mean for each feature, or one in all"
        )
    given = [layer.config.get(key) for key in ("mean", "variance")]
    if all(value is not None for value in given):
        try:
            mean, variance = (np.asarray(value, np.float64) for value in given)
        except (TypeError, ValueError) as error:
            raise ImportRefused(layer.place, f"mean, variance: not numbers ({error})") from error
    else:
        weights = layer_weights(file, layer, ["mean", "variance"])
        mean, variance = weights["mean"].astype(np.float64), weights["variance"].astype(np.float64)
    deviation = np.maximum(np.sqrt(np.maximum(variance, 0.0)), 1e-7)  # Keras' own bound
    mean, deviation = _flat(layer, mean), _flat(layer, deviation)
    if layer.config.get("invert"):
        return [Affine(layer.place, deviation, mean)]
    return [Normalize(layer.place, mean, deviation)]


def _batch_normalization(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    config = layer.config
    if config.get("axis", -1) not in (-1, 2, [-1], [2]):
        raise ImportRefused(layer.place, f"axis: got {config.get('axis')}, expected -1")
    names = [name for key, name in (("scale", "gamma"), ("center", "beta")) if config.get(key, True)]
    weights = layer_weights(file, layer, [*names, "moving_mean", "moving_variance"])
    values = {name: value.astype(np.float64) for name, value in weights.items()}
    scale = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + float(config.get("epsilon", 1e-3)))
    offset = values.get("beta", 0.0) - values["moving_mean"] * scale
    return [Affine(layer.place, np.asarray(scale), np.asarray(offset))]


def _rescaling(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    try:
        scale, offset = (np.asarray(layer.config.get(key, 0.0), np.float64) for key in ("scale", "offset"))
    except (TypeError, ValueError) as error:
        raise ImportRefused(layer.place, f"scale, offset: not numbers ({error})") from error
    return [Affine(layer.place, _flat(layer, scale), _flat(layer, offset))]


def _masking(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    value = layer.config.get("mask_value", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(np.float32(value)):
        raise ImportRefused(layer.place, f"mask_value: got {value!r}, expected a finite number")
    return [Mask(layer.place, float(value))]


def _activate(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    config = layer.config
    if layer.kind == "Activation":
        return [Activate(layer.place, _activation(layer, "activation", "linear", file))]
    if layer.kind == "ReLU":
        if config.get("max_value") is not None or config.get("threshold") or config.get("negative_slope"):
            raise ImportRefused(layer.place, "max_value, threshold or negative_slope: expected none")
        return [Activate(layer.place, "relu")]
    if layer.kind == "Softmax":
        if config.get("axis", -1) not in (-1, 2):
            raise ImportRefused(layer.place, f"axis: got {config.get('axis')}, expected -1")
        return [Activate(layer.place, "softmax")]
    key, default = ("alpha", 1.0) if layer.kind == "ELU" else ("negative_slope", 0.3)
    slope = config.get(key, config.get("alpha", default))
    if isinstance(slope, bool) or not isinstance(slope, int | float):
        raise ImportRefused(layer.place, f"{key}: got {slope!r}, expected a number")
    return [Activate(layer.place, "elu" if layer.kind == "ELU" else "leaky_relu", float(slope))]


def _activation(layer: KerasLayer, key: str, default: str, file: KerasFile) -> str:
    value: Any = layer.config.get(key, default)
    if isinstance(value, dict) and value.get("module") in ("keras.activations", "keras.src.activations.activations"):
        value = value.get("config")
    value = "linear" if value is None else value
    if not isinstance(value, str) or value not in _NAMED:
        raise ImportRefused(layer.place, f"{key}: got {str(value)[:80]!r}, expected one of {', '.join(sorted(_NAMED))}")
    if value == "hard_sigmoid" and file.version[:1] != (3,):
        raise ImportRefused(layer.place, f"{key}: hard_sigmoid of Keras 2, which Keras 3 computes otherwise")
    return _NAMED[value]


def _flat(layer: KerasLayer, values: Array) -> Array:
    """[F], or [] for a single number."""
    if values.size != 1 and values.size != values.shape[-1]:
        raise ImportRefused(layer.place, f"got shape {list(values.shape)}, expected one number for each feature")
    return values.reshape(-1) if values.ndim else values


_READERS: dict[str, Callable[[KerasFile, KerasLayer], list[Layer]]] = {
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "SimpleRNN": _recurrent,
    "Dense": _dense,
    "TimeDistributed": _time_distributed,
    "Embedding": _embedding,
    "Normalization": _normalization,
    "BatchNormalization": _batch_normalization,
    "Rescaling": _rescaling,
    "Masking": _masking,
    "Activation": _activate,
    "ReLU": _activate,
    "LeakyReLU": _activate,
    "ELU": _activate,
    "Softmax": _activate,
}
