"""The activation that a Keras layer's config names."""

from __future__ import annotations

from typing import Any

from .keras_file import KerasFile
from .keras_topology import KerasLayer
from .refusal import ImportRefused

NAMES = (
    "elu",
    "exponential",
    "hard_sigmoid",
    "linear",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
)


def read_activation(layer: KerasLayer, key: str, default: str, file: KerasFile) -> str:
    """One of NAMES, which are those of stack.ACTIVATIONS as well. Raises ImportRefused."""
    value: Any = layer.config.get(key, default)
    if isinstance(value, dict) and value.get("module") in ("keras.activations", "keras.src.activations.activations"):
        value = value.get("config")
    value = "linear" if value is None else value
    if not isinstance(value, str) or value not in NAMES:
        raise ImportRefused(layer.place, f"{key}: got {str(value)[:80]!r}, expected one of {', '.join(NAMES)}")
    if value == "hard_sigmoid" and file.version[:1] != (3,):
        raise ImportRefused(layer.place, f"{key}: hard_sigmoid of Keras 2, which Keras 3 computes otherwise")
    return value
