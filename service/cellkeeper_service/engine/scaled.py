"""Scales inputs, to imitate broken sensors and wrong units."""

from __future__ import annotations

import numpy as np

from cellkeeper_service.domain.engine import Array


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
