"""The sequences that an engine is tried with: ordinary values, and what broken sensors and wrong units send."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.spec import PackedInputs
from cellkeeper_service.model.config import Config, Tokens
from cellkeeper_service.model.named_inputs import NamedInput, NamedInputs

SEQUENCES = 256  # distinct sequences: many, for some kernels round differently for few values only
SHORT_STEPS = 16
LONG_SEQUENCES = 8
LONG_STEPS = 200

ORDINARY, POSITIVE, SPIKES, LARGE, HUGE, ZERO, MISSING = range(7)
_FIRST = (ORDINARY, HUGE, ORDINARY, LARGE, POSITIVE, ZERO, MISSING, SPIKES)  # also the smallest batches have company
_OTHERS = (LARGE, POSITIVE, ZERO, SPIKES, MISSING, HUGE)
SPIKE_EVERY_STEPS = 7
LARGE_SCALE, HUGE_SCALE = 1e3, 1e6


@dataclass(frozen=True)
class TrialSequences:
    """short: [SHORT_STEPS, SEQUENCES, ...]; long: [LONG_STEPS, LONG_SEQUENCES, ...], other values of the same kinds.

    judged: bool [SEQUENCES]: how far these differ says whether a model can be served. The others are company (huge or
    missing values); of them only the bits have to agree.
    """

    short: Array
    long: Array
    judged: NDArray[np.bool_]


def trial_sequences(config: Config, draw: np.random.Generator) -> TrialSequences:
    """Standard normal values around the model's normalisation, or token ids; some sequences scaled by 1e3 and 1e6, with
    single values scaled by 1e3, without negative values, all zero, or all NaN."""
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
    """[steps, len(kinds), ...]: a sequence of each kind."""
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
    """[steps, len(kinds), *shape]: of one of several inputs."""
    shape = (steps, len(kinds), *one.shape)
    if one.vocabulary:
        return draw.integers(0, one.vocabulary, shape, dtype=np.dtype(one.dtype))
    most = float(np.finfo(one.dtype).max)
    values = np.clip(_of_kinds(draw.standard_normal(shape), kinds), -most, most)
    return _marked(values, kinds).astype(one.dtype)


def _of_kinds(values: Array, kinds: Array) -> Array:
    """values: standard normal, [steps, len(kinds), ...]."""
    values[:, kinds == POSITIVE] = np.abs(values[:, kinds == POSITIVE])
    values[::SPIKE_EVERY_STEPS, kinds == SPIKES] *= LARGE_SCALE
    values[:, kinds == LARGE] *= LARGE_SCALE
    values[:, kinds == HUGE] *= HUGE_SCALE
    return values


def _marked(values: Array, kinds: Array) -> Array:
    values[:, kinds == ZERO] = 0.0
    values[:, kinds == MISSING] = np.nan
    return values
