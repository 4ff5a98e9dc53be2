"""Which values are finite."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cellkeeper_service.domain.engine import Array


def all_finite(values: Array) -> bool:
    """Between two engine calls every line of code comes back from memory, not from a cache: this is the way through the
    least of it, and numpy's settings for overflows need not be touched, which costs more than the question."""
    return bool(np.count_nonzero(np.isfinite(values)) == values.size)


def finite_rows(good: Array | None, after: Array, outputs: Mapping[str, Array]) -> Array | None:
    """bool [B]: input, new state [B, S] and outputs [T, B, ...] of the session are finite. None: those of all are."""
    if good is None and all_finite(after) and all(map(all_finite, outputs.values())):
        return None
    rows: Array = np.asarray(np.isfinite(after).all(axis=1))
    for values in outputs.values():
        rows &= np.isfinite(values).all(axis=(0, *range(2, values.ndim)))
    return rows if good is None else rows & good
