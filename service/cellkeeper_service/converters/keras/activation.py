"""Reads the activation that a Keras layer's config names."""

from __future__ import annotations

from typing import Any

from ..refusal import ImportRefused, NotRead
from ..stack import ACTIVATIONS, KERAS_2_HARD_SIGMOID, Activate
from .file import KerasFile
from .topology import KerasLayer

LEAKY_SLOPE = 0.2  # of Keras' function leaky_relu; the layer LeakyReLU has another default
_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}
NAMES = tuple(name for name in ACTIVATIONS if name != "gelu_tanh")


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


def activated(layer: KerasLayer, file: KerasFile) -> Activate:
    """Returns the activation as a separate layer."""
    name = read_activation(layer, "activation", "linear", file)
    return Activate(layer.place, name, LEAKY_SLOPE if name == "leaky_relu" else 1.0)
