"""Checks which values are finite."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cellkeeper_service.domain.engine import Array


def all_finite(values: Array) -> bool:
    """Returns True if all values are finite.

    Caches are cold after an engine call, so this uses the least code. It also needs no `np.errstate`, which would cost
    more than the check.
    """
    return bool(np.count_nonzero(np.isfinite(values)) == values.size)


def finite_rows(good: Array | None, after: Array, outputs: Mapping[str, Array]) -> Array | None:
    """Returns bool [B]: the session's input, new state and outputs are finite. None: all sessions' are.

    good: bool [B] for the inputs; None: all are good. after: new states [B, S]. outputs: [T, B, ...].
    """
    if good is None and all_finite(after) and all(map(all_finite, outputs.values())):
        return None
    rows: Array = np.asarray(np.isfinite(after).all(axis=1))
    for values in outputs.values():
        rows &= np.isfinite(values).all(axis=(0, *range(2, values.ndim)))
    return rows if good is None else rows & good
