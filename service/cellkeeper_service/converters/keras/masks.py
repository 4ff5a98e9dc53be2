"""How far a mask reaches: Keras passes it on from layer to layer, until one does not."""

from __future__ import annotations

from ..refusal import ImportRefused
from .file import KerasFile
from .recurrent import RECURRENT
from .topology import KerasLayer

ENDED_BY_KERAS_2 = ("Normalization", "Rescaling")  # Keras 3 passes masks through them


def ends_mask(file: KerasFile, layer: KerasLayer) -> bool:
    """Returns True if neither the layer nor those after it see the mask of what it takes. Raises ImportRefused."""
    if _kind(layer) == "Softmax":
        raise ImportRefused(
            layer.place,
            "takes the mask of time steps for one of its values, and fails in Keras; expected Activation('softmax'), "
            "which computes the same without it",
        )
    if layer.kind in ENDED_BY_KERAS_2 and not file.version:
        raise ImportRefused(
            layer.place,
            "a mask before it, which Keras 2 ends there and Keras 3 does not, in a file without keras_version",
        )
    return layer.kind == "Conv1D" or (layer.kind in ENDED_BY_KERAS_2 and file.version < (3,))


def is_masked(layer: KerasLayer, before: bool) -> bool:
    """Returns True if what the layer returns has a mask. before: what it takes has one that the layer does not end."""
    if layer.kind == "Embedding":
        return bool(layer.config.get("mask_zero", False))
    if layer.kind in (*RECURRENT, "RNN"):
        return before and bool(layer.config.get("return_sequences", False))
    return before or layer.kind == "Masking"


def _kind(layer: KerasLayer) -> str:
    """Returns the class of the layer, or of the one that TimeDistributed applies to each time step, with its mask."""
    inner = layer.config.get("layer") if layer.kind == "TimeDistributed" else None
    return str(inner.get("class_name")) if isinstance(inner, dict) else layer.kind
