"""How much a step moves a session's state, which shows drift and collapse."""

from __future__ import annotations

import numpy as np

from cellkeeper_service.domain.engine import Engine, Rows


def state_change(engine: Engine, before: Rows, after: Rows) -> tuple[float, float] | None:
    """Compares the states in the rows `before` and `after`, one each. Returns the second's norm, and their distance
    relative to the larger norm: 0..2. (A new session's state is often zero, so the first norm alone is no scale.)
    Returns None for states that are not float32 or not finite."""
    if any(state.dtype != "float32" for state in engine.spec.states):
        return None
    first, second = (engine.read_states(rows).view(np.float32).astype(np.float64) for rows in (before, after))
    norm = float(np.linalg.norm(second))
    if not np.isfinite(norm):
        return None
    scale = max(norm, float(np.linalg.norm(first)))
    return norm, float(np.linalg.norm(second - first)) / scale if scale else 0.0
