"""Inputs, the same for every contender."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.models import MODELS


def samples(model: str, *shape: int) -> NDArray[Any]:
    """Returns float32 [*shape, features]."""
    return np.random.default_rng(0).standard_normal((*shape, MODELS[model].features)).astype("<f4")
