"""Splits packed states into their tensors."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.spec import TensorSpec


def state_tensors(states: Array, specs: Iterable[TensorSpec]) -> list[Array]:
    """Returns each tensor of the states as [B, values] in its own dtype. states: uint8 [B, state_bytes]."""
    tensors, start = [], 0
    for spec in specs:
        part = np.ascontiguousarray(states[:, start : start + spec.nbytes])
        tensors.append(part.view(spec.numpy_dtype))
        start += spec.nbytes
    return tensors
