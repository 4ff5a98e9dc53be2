"""The layers in front of everything else: what scales the input, and a mask behind it.

A mask compares exactly. Therefore it is decided here in float32, as frameworks and the served graph decide it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .stack import Affine, Array, Embed, Mask, Normalize, Stack


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
