"""The sequences of the trial: ordinary values, and what broken sensors and wrong units send."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.spec import PackedInputs
from cellkeeper_service.model.config import Config, Tokens
from cellkeeper_service.model.named_inputs import NamedInput, NamedInputs

SEQUENCES = 256  # distinct sequences; many, because some kernels round differently for only a few values
SHORT_STEPS = 16
LONG_SEQUENCES = 8
LONG_STEPS = 200

ORDINARY, POSITIVE, SPIKES, LARGE, HUGE, ZERO, MISSING = range(7)
_FIRST = (ORDINARY, HUGE, ORDINARY, LARGE, POSITIVE, ZERO, MISSING, SPIKES)  # so that small batches are mixed, too
_OTHERS = (LARGE, POSITIVE, ZERO, SPIKES, MISSING, HUGE)
SPIKE_EVERY_STEPS = 7
LARGE_SCALE, HUGE_SCALE = 1e3, 1e6


@dataclass(frozen=True)
class TrialSequences:
    """short: [SHORT_STEPS, SEQUENCES, ...]; long: [LONG_STEPS, LONG_SEQUENCES, ...], other values of the same kinds.

    judged: bool [SEQUENCES], True for sequences whose differences decide whether the model can be served. The others
    (huge or missing values) are there as neighbors: their bits must agree too, but the size of a difference is ignored.
    """

    short: Array
    long: Array
    judged: NDArray[np.bool_]


def trial_sequences(config: Config, draw: np.random.Generator) -> TrialSequences:
    """Draws standard normal values, scaled by the model's normalization, or token ids.

    Some sequences are multiplied by 1e3 or 1e6, have single values multiplied by 1e3, have no negative values, or are
    all zero or all NaN.
    """
    kinds = np.array(
        [
            _FIRST[i] if i < len(_FIRST) else (_OTHERS[i // 4 % len(_OTHERS)] if i % 4 == 3 else ORDINARY)
            for i in range(SEQUENCES)
        ]
    )
    if isinstance(config.input, Tokens):
        kinds[:] = ORDINARY
    return TrialSequences(
        short=drawn(config, draw, SHORT_STEPS, kinds),
        long=drawn(config, draw, LONG_STEPS, kinds[:LONG_SEQUENCES]),
        judged=(kinds != HUGE) & (kinds != MISSING),
    )


def drawn(config: Config, draw: np.random.Generator, steps: int, kinds: Array) -> Array:
    """Draws one sequence for each of `kinds`: [steps, len(kinds), ...]."""
    source = config.input
    if isinstance(source, NamedInputs):
        each = {one.name: _drawn_input(one, draw, steps, kinds) for one in source.inputs}
        return PackedInputs.of(tuple(one.spec for one in source.inputs)).pack(each)
    if isinstance(source, Tokens):
        return draw.integers(0, source.vocabulary, (steps, len(kinds)), dtype=np.int32)
    values = _of_kinds(draw.standard_normal((steps, len(kinds), source.size)), kinds)
    if source.normalization is not None:
        values = values * source.normalization.scale + source.normalization.offset
    return _marked(values, kinds).astype(np.float32).reshape(steps, len(kinds), *source.step_shape)


def _drawn_input(one: NamedInput, draw: np.random.Generator, steps: int, kinds: Array) -> Array:
    """Draws one of several inputs: [steps, len(kinds), *shape]."""
    shape = (steps, len(kinds), *one.shape)
    if one.vocabulary:
        return draw.integers(0, one.vocabulary, shape, dtype=np.dtype(one.dtype))
    most = float(np.finfo(one.dtype).max)
    values = np.clip(_of_kinds(draw.standard_normal(shape), kinds), -most, most)
    return _marked(values, kinds).astype(one.dtype)


def _of_kinds(values: Array, kinds: Array) -> Array:
    """Turns standard normal values [steps, len(kinds), ...] into sequences of these kinds, in place."""
    values[:, kinds == POSITIVE] = np.abs(values[:, kinds == POSITIVE])
    values[::SPIKE_EVERY_STEPS, kinds == SPIKES] *= LARGE_SCALE
    values[:, kinds == LARGE] *= LARGE_SCALE
    values[:, kinds == HUGE] *= HUGE_SCALE
    return values


def _marked(values: Array, kinds: Array) -> Array:
    values[:, kinds == ZERO] = 0.0
    values[:, kinds == MISSING] = np.nan
    return values


def scaled(inputs: Array, scale: float) -> Array | None:
    """Returns the inputs times a number, in their dtype; of several inputs, only floats are scaled.

    Returns None if none are floats (token ids have no scale). Values of float16 and float64 inputs that leave the
    dtype's range are clipped to it.
    """
    if inputs.dtype.names is None:
        return _times(inputs, scale) if inputs.dtype.kind == "f" else None
    floats = [name for name in inputs.dtype.names if inputs[name].dtype.kind == "f"]
    if not floats:
        return None
    result = inputs.copy()
    for name in floats:
        result[name] = _times(inputs[name], scale)
    return result


def _times(values: Array, scale: float) -> Array:
    if values.dtype == np.float32:
        return (values * np.float32(scale)).astype(np.float32)
    most = float(np.finfo(values.dtype).max)
    return np.clip(values.astype(np.float64) * scale, -most, most).astype(values.dtype)
