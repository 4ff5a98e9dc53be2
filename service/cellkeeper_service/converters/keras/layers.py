"""Converts Keras layers to a stack's layers. Refuses what cannot be streamed, naming the layer and the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cellkeeper_service.model.fields import is_number

from ..refusal import BACKWARD, HALF_PRECISION, QUANTIZED, ImportRefused, NotRead
from ..stack import (
    Activate,
    Affine,
    Array,
    CausalConv,
    Dense,
    Embed,
    Layer,
    LayerNorm,
    Mask,
    Merge,
    Normalize,
    ParametricRelu,
)
from .file import KerasFile, layer_weights
from .recurrent import RECURRENT, read_activation, read_cells, read_recurrent
from .topology import MERGES, KerasLayer, refuse_custom

WHOLE_SEQUENCE = "needs the whole sequence, of which a stream has only seen the past"
SHAPING = ("Flatten", "Reshape", "Permute")  # harmless after the last time step, which has no time axis
NOT_STREAMED = {
    "Bidirectional": BACKWARD,
    **dict.fromkeys(
        (
            "Attention",
            "AdditiveAttention",
            "MultiHeadAttention",
            "GroupedQueryAttention",
            "GlobalAveragePooling1D",
            "GlobalMaxPooling1D",
            *SHAPING,
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
_BY_TIME_STEP = (  # compute the same within TimeDistributed
    "Dense",
    "LayerNormalization",
    "BatchNormalization",
    "Rescaling",
    "Activation",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "Softmax",
)
_DTYPES = ("float32", "float64")
LEAKY_SLOPE = 0.2  # of Keras' function leaky_relu; the layer LeakyReLU has another default


def read_layer(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    """Returns up to two layers of a stack. Scales and offsets may be single numbers, with shape []."""
    if layer.kind in SHAPING and layer.untimed:
        raise NotRead(layer.place, "shapes the last time step, which the import does not read")
    if layer.kind in SHAPING:
        raise ImportRefused(
            layer.place,
            f"{NOT_STREAMED[layer.kind]}, unless it comes after a last time step; expected return_sequences=False in "
            "the recurrent layer before it",
        )
    if layer.kind in NOT_STREAMED and layer.kind not in _READERS:
        raise ImportRefused(layer.place, NOT_STREAMED[layer.kind])
    if layer.kind not in _READERS and layer.kind not in _IGNORED:
        known = ", ".join(sorted({*_READERS, *_IGNORED}))
        raise NotRead(layer.place, f"not a layer that the import reads, expected one of {known}")
    if layer.constant:
        raise NotRead(layer.place, f"is called with {layer.constant}, expected the values of layers only")
    policy = layer.config.get("dtype")
    if isinstance(policy, dict) and str(policy.get("class_name")).startswith("Quantized"):
        raise ImportRefused(layer.place, QUANTIZED.format("model"))
    dtype = _dtype(layer)
    if layer.kind not in _IGNORED and dtype not in _DTYPES:
        raise ImportRefused(layer.place, HALF_PRECISION.format(dtype))
    return [] if layer.kind in _IGNORED else _READERS[layer.kind](file, layer)


def _dtype(layer: KerasLayer) -> str:
    dtype = layer.config.get("dtype", "float32")
    if isinstance(dtype, dict):
        inner = dtype.get("config")
        dtype = inner.get("name", "?") if isinstance(inner, dict) else "?"
    return str(dtype or "float32")


def _dense(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    names = ["kernel", *(["bias"] if layer.config.get("use_bias", True) else [])]
    weights = layer_weights(file, layer, names)
    if layer.config.get("quantization_config"):
        raise ImportRefused(layer.place, QUANTIZED.format("model"))
    weight = _matrix(layer, "kernel", weights["kernel"]).T
    return _with_activation(Dense(layer.place, weight, weights.get("bias")), file, layer)


def _with_activation(made: Layer, file: KerasFile, layer: KerasLayer) -> list[Layer]:
    after = _activated(layer, file)
    return [made] if after.op == "linear" else [made, after]


def _activated(layer: KerasLayer, file: KerasFile) -> Activate:
    name = read_activation(layer, "activation", "linear", file)
    return Activate(layer.place, name, LEAKY_SLOPE if name == "leaky_relu" else 1.0)


def _time_distributed(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    inner = layer.config.get("layer")
    kind = inner.get("class_name") if isinstance(inner, dict) else None
    config = inner.get("config") if isinstance(inner, dict) else None
    if kind in _IGNORED:
        return []
    if isinstance(inner, dict):
        refuse_custom(inner, f"{layer.place}: layer {kind}")
    if kind not in _BY_TIME_STEP or not isinstance(config, dict):
        raise NotRead(layer.place, f"wraps {kind}, expected one of {', '.join(_BY_TIME_STEP)}")
    within = replace(layer, kind=kind, config=config, holder=layer.kind, within=("layer",), untimed=True)
    return _READERS[kind](file, within)


def _embedding(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    weight = _matrix(layer, "embeddings", layer_weights(file, layer, ["embeddings"])["embeddings"])
    return [Embed(layer.place, weight, bool(layer.config.get("mask_zero", False)))]


def _normalization(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    if layer.config.get("axis", -1) not in (None, []):
        _check_axis(layer, " or None: one mean for each feature, or a single one")
    keys = ("mean", "variance")
    given: list[object] = [layer.config.get(key) for key in keys]
    if any(value is None for value in given):
        given = list(layer_weights(file, layer, [*keys]).values())
    mean, variance = _numbers(layer, keys, given)
    deviation = np.maximum(np.sqrt(np.maximum(variance, 0.0)), 1e-7)  # Keras has the same lower bound
    mean, deviation = _flat(layer, mean), _flat(layer, deviation)
    if layer.config.get("invert"):
        return [Affine(layer.place, deviation, mean)]
    return [Normalize(layer.place, mean, deviation)]


def _batch_normalization(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    _check_axis(layer)
    names = _scaling(layer)
    weights = layer_weights(file, layer, [*names, "moving_mean", "moving_variance"])
    values = {name: value.astype(np.float64) for name, value in weights.items()}
    shapes = {value.shape for value in values.values()}
    if len(shapes) > 1 or (values["moving_variance"] < 0).any():
        raise ImportRefused(
            layer.place, f"got shapes {sorted(map(list, shapes))} and variances, expected one, and none below 0"
        )
    deviation = np.sqrt(values["moving_variance"] + _number(layer, "epsilon", 1e-3))
    # like Keras, subtracts the mean first: x * scale + offset would lose digits where the mean is large
    normalized = Normalize(layer.place, values["moving_mean"], deviation)
    if not names:
        return [normalized]
    ones, zeros = np.ones_like(deviation), np.zeros_like(deviation)
    return [normalized, Affine(layer.place, values.get("gamma", ones), values.get("beta", zeros))]


def _rescaling(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    keys = ("scale", "offset")
    scale, offset = _numbers(layer, keys, [layer.config.get(key, 0.0) for key in keys])
    return [Affine(layer.place, _flat(layer, scale), _flat(layer, offset))]


def _masking(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    return [Mask(layer.place, _number(layer, "mask_value", 0.0))]


def _activate(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    config = layer.config
    if layer.kind == "Activation":
        return [_activated(layer, file)]
    if layer.kind == "ReLU":
        most, slope = config.get("max_value"), config.get("negative_slope") or 0.0
        if config.get("threshold") or (most is not None and (most != 6 or slope)):
            raise NotRead(
                layer.place,
                f"max_value, threshold, negative_slope: got {most}, {config.get('threshold')}, {slope}, expected a "
                "slope alone, or max_value 6 alone",
            )
        if slope:
            return [Activate(layer.place, "leaky_relu", _number(layer, "negative_slope", 0.0))]
        return [Activate(layer.place, "relu" if most is None else "relu6")]
    if layer.kind == "Softmax":
        _check_axis(layer)
        return [Activate(layer.place, "softmax")]
    if layer.kind == "ELU":
        return [Activate(layer.place, "elu", _number(layer, "alpha", 1.0))]
    key = "negative_slope" if "negative_slope" in config else "alpha"  # Keras 2 calls it alpha
    return [Activate(layer.place, "leaky_relu", _number(layer, key, 0.3))]


def _layer_norm(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    _check_axis(layer, ": over the features of a time step")
    if layer.config.get("rms_scaling"):
        raise NotRead(layer.place, "rms_scaling: got true, expected false")
    weights = layer_weights(file, layer, _scaling(layer))
    return [LayerNorm(layer.place, _number(layer, "epsilon", 1e-3), weights.get("gamma"), weights.get("beta"))]


def _convolution(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    config = layer.config
    if config.get("padding") != "causal":
        raise ImportRefused(layer.place, f"{NOT_STREAMED['Conv1D']}, expected padding='causal'")
    numbers = {}
    for key in ("strides", "dilation_rate", "groups"):
        came = config.get(key, 1)
        came = came[0] if isinstance(came, list | tuple) and len(came) == 1 else came
        if type(came) is not int or came < 1 or (key != "dilation_rate" and came != 1):
            raise ImportRefused(layer.place, f"{key}: got {str(came)[:40]}, expected 1")
        numbers[key] = came
    if config.get("data_format", "channels_last") != "channels_last":
        raise ImportRefused(layer.place, f"data_format: got {config.get('data_format')}, expected channels_last")
    weights = layer_weights(file, layer, ["kernel", *(["bias"] if config.get("use_bias", True) else [])])
    kernel = weights["kernel"]
    if kernel.ndim != 3 or not kernel.size:
        raise ImportRefused(layer.place, f"kernel: got shape {list(kernel.shape)}, expected [kernel, inputs, units]")
    if len(kernel) == 1:
        made: Layer = Dense(layer.place, kernel[0].T, weights.get("bias"))
    else:
        made = CausalConv(layer.place, kernel.transpose(2, 0, 1), weights.get("bias"), numbers["dilation_rate"])
    return _with_activation(made, file, layer)


def _parametric_relu(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    slope = layer_weights(file, layer, ["alpha"])["alpha"]
    if not slope.ndim or slope.size != slope.shape[-1]:
        raise NotRead(
            layer.place, f"alpha: got shape {list(slope.shape)}, expected one slope for all time steps: shared_axes=[1]"
        )
    return [ParametricRelu(layer.place, slope.reshape(-1))]


def _merge(file: KerasFile, layer: KerasLayer) -> list[Layer]:
    if layer.kind == "Concatenate":
        _check_axis(layer, ": the features")
    return [Merge(layer.place, layer.kind.lower())]


def _check_axis(layer: KerasLayer, why: str = "") -> None:
    axis = layer.config.get("axis", -1)
    features = 1 if layer.untimed else 2  # Keras 2 writes the axis of a normalization as it counts in what it takes
    if axis not in (-1, features, [-1], [features]):
        raise ImportRefused(layer.place, f"axis: got {axis}, expected -1{why}")


def _scaling(layer: KerasLayer) -> list[str]:
    """Returns the weights with which a normalizing layer scales and moves its result."""
    return [name for key, name in (("scale", "gamma"), ("center", "beta")) if layer.config.get(key, True)]


def _numbers(layer: KerasLayer, keys: tuple[str, str], given: Sequence[object]) -> list[Array]:
    try:
        return [np.asarray(value, np.float64) for value in given]
    except (TypeError, ValueError, OverflowError) as error:
        raise ImportRefused(layer.place, f"{', '.join(keys)}: not numbers ({error})") from error


def _number(layer: KerasLayer, key: str, default: float) -> float:
    value = layer.config.get(key, default)
    if not is_number(value):
        raise ImportRefused(layer.place, f"{key}: got {str(value)[:40]!r}, expected a finite float32 number")
    return float(value)


def _matrix(layer: KerasLayer, name: str, values: Array) -> Array:
    if values.ndim != 2:
        raise ImportRefused(layer.place, f"{name}: got shape {list(values.shape)}, expected a matrix")
    return values


def _flat(layer: KerasLayer, values: Array) -> Array:
    """Returns [F], or [] for a single number."""
    if values.size != 1 and values.size != values.shape[-1]:
        raise ImportRefused(layer.place, f"got shape {list(values.shape)}, expected one number for each feature")
    return values.reshape(-1) if values.ndim else values


_READERS: dict[str, Callable[[KerasFile, KerasLayer], list[Layer]]] = {
    **dict.fromkeys(RECURRENT, read_recurrent),
    "RNN": read_cells,
    "LayerNormalization": _layer_norm,
    "PReLU": _parametric_relu,
    "Conv1D": _convolution,
    **dict.fromkeys(MERGES, _merge),
    "Dense": _dense,
    "TimeDistributed": _time_distributed,
    "Embedding": _embedding,
    "Normalization": _normalization,
    "BatchNormalization": _batch_normalization,
    "Rescaling": _rescaling,
    "Masking": _masking,
    **dict.fromkeys(("Activation", "ReLU", "LeakyReLU", "ELU", "Softmax"), _activate),
}
