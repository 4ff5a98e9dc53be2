"""The inputs of the comparison: random time steps that exercise all parts of a model.

Values around the model's normalization, masked time steps, and the values that a model may treat in a special way:
zero, the first and the last token ids, and whatever it compares its inputs with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .proof import SEQUENCES, STEPS, WITH_SPECIAL, Drawn, Scaled, Special, times
from .reference import apply, leading, masked_input, masks, rescaled
from .stack import Array, Embed, Mask, Normalize, Stack

FIRST_IDS = 4  # padding, unknown word, start and end usually have the lowest ids
SPECIAL_IDS_SHARE, SPECIAL_STEPS_SHARE, SPECIAL_VALUES_SHARE = 0.25, 0.15, 0.1
MASKED_SHARE, MOST_LEADING = 0.25, 2  # padding is often at the start
MOST_VALUES = 32


def draw_ids(
    draw: np.random.Generator, vocabulary: int, shape: Sequence[int], dtype: str, special: Sequence[float] = ()
) -> Array:
    """Returns token ids. A quarter of them are the first ones, the last one, or among `special`."""
    ids = draw.integers(0, vocabulary, shape, dtype=np.dtype(dtype))
    wanted = {*range(FIRST_IDS), vocabulary - 1, *(int(value) for value in special if value == int(value))}
    chosen = np.array(sorted(value for value in wanted if 0 <= value < vocabulary), ids.dtype)
    return np.where(draw.random(shape) < SPECIAL_IDS_SHARE, draw.choice(chosen, shape), ids).astype(ids.dtype)


def with_values(draw: np.random.Generator, inputs: Array, values: Array) -> Array:
    """Returns the float inputs [T, ...] with some elements, and some whole time steps, of these values [K, ...]."""
    steps, count = len(inputs), len(values)
    flat, chosen = inputs.reshape(steps, -1).copy(), values.reshape(count, -1)
    columns = np.arange(flat.shape[1])
    elements = draw.random(flat.shape) < SPECIAL_VALUES_SHARE
    flat = np.where(elements, chosen[draw.integers(0, count, flat.shape), columns], flat)
    whole = draw.random(steps) < SPECIAL_STEPS_SHARE
    flat[whole] = chosen[draw.integers(0, count, int(whole.sum()))]
    return flat.reshape(inputs.shape).astype(inputs.dtype)


def special_values(
    compared: Sequence[float], shape: Sequence[int], dtype: str = "float32", around: Normalize | None = None
) -> Array:
    """Returns values [K, *shape] at which a model may compute something else.

    These are zero, the numbers that it compares with, and numbers on either side of them; with a normalization, also
    those that become one of these behind it, where float32 and float64 agree on that.
    """
    numbers = {0.0, *(float(value) + step for value in compared[:MOST_VALUES] for step in (-1.0, 0.0, 1.0))}
    with np.errstate(over="ignore"):
        kept = np.array(sorted(numbers), np.float64).astype(dtype)
    kept = kept[np.isfinite(kept)].reshape(-1, *(1 for _ in shape))
    values = np.broadcast_to(kept, (len(kept), *shape))
    if around is None:
        return values
    raw = (values * around.scale + around.offset).astype(np.float32)
    in_float64 = ((raw.astype(np.float64) - around.offset) / around.scale).astype(np.float32)
    reached = (rescaled(around, raw, np.float32) == values) & (in_float64 == values)
    return np.concatenate([values, raw[reached.all(axis=1)]])


def rounding(around: Normalize | None) -> float:
    """Returns how much of an ordinary input float32 may round away: more, the larger the offset next to the scale."""
    if around is None:
        return 0.0
    return float(np.abs(around.offset / around.scale).max() * np.finfo(np.float32).eps)


def draw_inputs(stack: Stack) -> Drawn:
    """Returns the inputs with which a stack is compared."""
    resolution = rounding(normalization_of(stack))
    return Drawn(random_sequences(stack), scaled_as(stack), special_sequences(stack), resolution)


def normalization_of(stack: Stack) -> Normalize | None:
    """Returns what the leading layers do to an input, as one normalization; None if nothing scales it."""
    scaling = [layer for layer in leading(stack) if not isinstance(layer, Mask)]
    if not scaling:
        return None
    ends: Any = [np.zeros(stack.size), np.ones(stack.size)]
    for layer in scaling:
        plain = Normalize(layer.place, layer.offset, layer.scale) if isinstance(layer, Normalize) else layer
        ends = [apply(plain, end) for end in ends]
    return normalization(ends[1] - ends[0], ends[0])


def normalization(factor: Array, shift: Array) -> Normalize:
    """Returns x * factor + shift as a normalization, whose scale is 1 for a feature that does not count."""
    counts = np.abs(factor) > np.finfo(np.float32).tiny
    factor = np.where(counts, factor, 1.0)
    return Normalize("normalization", np.where(counts, -shift / factor, 0.0), np.where(counts, np.abs(1 / factor), 1.0))


def random_sequences(stack: Stack, sequences: int = SEQUENCES, steps: int = STEPS, seed: int = 0) -> Sequence[Array]:
    """Returns plausible inputs: [T, F] float32 around the normalization, or ids [T] int32.

    If the stack has a mask, a quarter of the time steps is masked, in every second sequence also the first ones. Where
    a value stands for a missing one, some time steps lack one feature only.
    """
    draw = np.random.default_rng(seed)
    first: Any = stack.layers[0]
    around, skipped = normalization_of(stack), masked_input(stack)
    drawn = []
    for number in range(sequences):
        masked = draw.random(steps) < MASKED_SHARE
        masked[:MOST_LEADING] = number % 2 == 1
        if isinstance(first, Embed):
            ids = draw_ids(draw, stack.vocabulary, [steps], "int32")
            if first.mask_zero:
                ids = np.where(masked, 0, np.where(ids == 0, stack.vocabulary - 1, ids)).astype(np.int32)
            drawn.append(ids)
            continue
        values = draw.standard_normal((steps, stack.size))
        if around is not None:
            values = values * around.scale + around.offset
        if isinstance(first, Normalize) and first.stand_ins is not None:
            missing = np.broadcast_to(first.stand_ins[0], (stack.size,))
            values[draw.random(steps) < SPECIAL_VALUES_SHARE, 0] = missing[0]
        if skipped is not None:
            values[masked] = skipped
        drawn.append(values.astype(np.float32))
    return drawn


def special_sequences(stack: Stack) -> Special:
    """Returns further trials, with zeros and the mask's value, in some features or in all; none for token ids."""
    if stack.vocabulary:
        return []
    skipped = masked_input(stack)
    values = special_values((), (stack.size,), around=normalization_of(stack))
    values = values if skipped is None else np.concatenate([values, skipped[None]])
    (ordinary,) = random_sequences(stack, 1, seed=1)
    return [(WITH_SPECIAL, with_values(np.random.default_rng(1), ordinary, values))]


def scaled_around(around: Normalize | None) -> Scaled:
    """Returns a function that scales inputs around the middle of the normalization."""
    if around is None:
        return times
    offset = np.asarray(around.offset, np.float64)

    def scaled(inputs: Array, scale: float) -> Array | None:
        if scale == 1.0:
            return inputs
        return ((inputs.astype(np.float64) - offset) * scale + offset).astype(np.float32)

    return scaled


def scaled_as(stack: Stack) -> Scaled:
    """Returns a function that scales inputs of random_sequences around the normalization, and keeps masked steps."""
    first: Any = stack.layers[0]
    by, skipped = scaled_around(normalization_of(stack)), masked_input(stack)

    def scaled(inputs: Array, scale: float) -> Array | None:
        values = by(inputs, scale)
        if values is None:
            return None
        if isinstance(first, Normalize) and first.stand_ins is not None:
            values = np.where(inputs == np.asarray(first.stand_ins[0], np.float32), inputs, values)
        if skipped is None:
            return values
        if scale == 0.0 and masks(stack, values[0]):
            return None  # every time step would be masked
        return np.where((inputs == skipped).all(axis=1, keepdims=True), inputs, values).astype(np.float32)

    return scaled
