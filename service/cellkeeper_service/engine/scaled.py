"""Inputs in another size: what broken sensors and wrong units send."""

from __future__ import annotations

import numpy as np

from cellkeeper_service.domain.engine import Array


def scaled(inputs: Array, scale: float) -> Array | None:
    """The inputs times a number, in their dtype; of several inputs those that are floats. None: none of them are (token
    ids have no size). What is beyond a float's range is the largest that it holds."""
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
