"""Which values are finite."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import numpy as np

from cellkeeper_service.domain.engine import Array


def surely_finite(values: Array) -> bool:
    """One pass without a table of answers: a sum of squares is finite only if every value is. False: some value may not
    be, or the sum is too large, of which numpy warns unless it is `quiet`. What is contiguous is not copied."""
    flat = values.reshape(-1)
    return isfinite(np.dot(flat, flat))


def quiet() -> np.errstate:
    """To be entered once for all questions of a call: entering costs as much as a question."""
    return np.errstate(over="ignore", invalid="ignore")


def finite_rows(good: Array | None, after: Array, outputs: Mapping[str, Array]) -> Array:
    """bool [B]: input, new state [B, S] and outputs [T, B, ...] of the session are finite."""
    rows = np.ones(len(after), np.bool_) if good is None else good
    if not surely_finite(after):
        rows &= np.isfinite(after).all(axis=1)
    for values in outputs.values():
        if not surely_finite(values):
            rows &= np.isfinite(values).all(axis=(0, *range(2, values.ndim)))
    return rows
