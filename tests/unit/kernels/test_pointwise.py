"""The point-wise functions against float64, over all magnitudes and both signs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from testing.bundles import Array

from . import probe
from .chunks import DEVICE
from .interpreter import INTERPRETED
from .reference import ACTIVATIONS

FUNCTIONS: dict[str, Callable[[NDArray[np.float64]], Any]] = {
    **ACTIVATIONS,
    "exp": np.exp,
    "expm1": np.expm1,
    "sinh": np.sinh,
}
MOST_ULP = 3.0
BLOCK = 16384 if INTERPRETED else 1024  # the interpreter takes about the same time for a block of any size
# Where a product or a difference of larger values is nearly 0, it has their rounding error: their ulp counts.
CANCELLING = ("gelu", "gelu_tanh", "hard_sigmoid", "hard_silu", "mish", "silu")
_TINIEST = np.finfo(np.float32).tiny


def apply(name: str, values: Array) -> Array:
    source = torch.from_numpy(values).to(DEVICE)
    out = torch.empty_like(source)
    with np.errstate(all="ignore"):
        probe.apply[(-(-len(values) // BLOCK),)](source, out, len(values), FUNCTION=name, N=BLOCK)
    return np.asarray(out.cpu().numpy())


def values_of_all_sizes() -> Array:
    draw = np.random.default_rng(1)
    sizes = np.concatenate(
        [
            2.0 ** draw.uniform(-40, 7, 30_000),
            draw.uniform(0, 110, 30_000),
            draw.uniform(0, 1, 30_000),
            [0.0, 88.8, 89.2],
        ]
    )
    return np.asarray(np.concatenate([sizes, -sizes]).astype(np.float32))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_within_a_few_ulp_of_float64(name: str) -> None:
    values = values_of_all_sizes()
    came = apply(name, values)
    with np.errstate(all="ignore"):
        exact = np.asarray(FUNCTIONS[name](values.astype(np.float64)))
        expected = exact.astype(np.float32)
    representable = np.isfinite(expected) & (np.abs(expected) >= _TINIEST)
    size = np.abs(expected)
    if name in CANCELLING:
        size = np.maximum(size, 1.0 if name == "hard_sigmoid" else np.minimum(np.abs(values), 1.0))
    ulp = np.spacing(size[representable].astype(np.float32)).astype(np.float64)
    errors = np.abs(came[representable].astype(np.float64) - exact[representable]) / ulp
    worst = int(errors.argmax())
    assert errors[worst] <= MOST_ULP, f"{name}({values[representable][worst]!r}) is off by {errors[worst]:.1f} ulp"
    tiny = np.abs(expected) < _TINIEST
    factor = np.maximum(np.abs(values[tiny]), 1.0) if name in CANCELLING else 1.0  # x times a denormal
    assert (np.abs(came[tiny] - expected[tiny]) <= 2e-44 * factor).all()  # denormals: an absolute error
    assert np.array_equal(came[np.isinf(expected)], expected[np.isinf(expected)])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_infinities_and_nan_give_their_limits(name: str) -> None:
    odd_nan = np.array([0xFFFFFFFF], np.uint32).view(np.float32)[0]  # the NaN with all bits set
    values = np.array([np.inf, -np.inf, np.nan, odd_nan], np.float32)
    with np.errstate(all="ignore"):
        expected = np.asarray(FUNCTIONS[name](values.astype(np.float64))).astype(np.float32)
    assert np.array_equal(apply(name, values), expected, equal_nan=True)
