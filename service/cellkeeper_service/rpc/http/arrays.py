"""Converts arrays to and from nested JSON lists without losing a bit.

Non-finite numbers are the strings "NaN", "Infinity" and "-Infinity"; where values may be missing, null is read as NaN,
too. Integers beyond 2^53 are written as strings of digits; numbers are accepted too. A float32 is written as the
shortest decimal of the same value in float64: every reader parses it to that value, which converts back to the same
float32.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.errors import invalid

from .json_text import SAFE_INTEGER, integer, shown

NAMED = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
MAX_RANK = 16
MAX_DIGITS = 20  # an int64 with its sign
FLOATS = 'numbers, or "NaN", "Infinity", "-Infinity"'
NO_NULL = "numbers; only inputs of a model that accepts missing values may be null"
WITH_MISSING = 'numbers, or null or "NaN" for a missing value'
INTEGERS = "whole numbers that int64 can hold"


def read_array(value: Any, kind: str, field: str, dtype: str = "", *, missing: bool = False) -> Array:
    """Reads nested lists of numbers, or one number, as float64 (kind "f") or int64 (kind "i"). Raises a Rejection.

    dtype: of floats, which it must be able to hold; empty: float64. missing: floats may be null, which becomes NaN.
    """
    leaves, shape = _leaves(value, field)
    values = _floats(leaves, field, dtype or "float64", missing) if kind == "f" else _integers(leaves, field)
    return values.reshape(shape)


def write_array(values: Array) -> Any:
    """Returns nested lists, or a single value if the array has no axes."""
    if values.dtype.kind == "f":
        if np.isfinite(values).all():
            return values.tolist()
        return _written(values.astype(np.float64).tolist(), _float)
    if values.dtype.itemsize < 8 or not values.size or -SAFE_INTEGER <= values.min() <= values.max() <= SAFE_INTEGER:
        return values.tolist()
    return _written(values.tolist(), integer)


def _leaves(value: Any, field: str) -> tuple[list[Any], list[int]]:
    level, shape = [value], list[int]()
    while level and type(level[0]) is list:
        sizes = {len(item) if type(item) is list else -1 for item in level}
        if len(sizes) != 1 or len(shape) == MAX_RANK:
            raise invalid(field, "lists of different lengths or depths", "nested lists that form one array")
        shape.append(sizes.pop())
        level = list(chain.from_iterable(level))
    return level, shape


def _floats(leaves: list[Any], field: str, dtype: str, missing: bool) -> Array:
    kinds = set(map(type, leaves))
    expected = WITH_MISSING if missing else FLOATS
    named = 0
    if not kinds <= {float, int}:
        for at, leaf in enumerate(leaves):
            if type(leaf) is str and leaf in NAMED:
                leaves[at] = NAMED[leaf]
                named += 1
            elif leaf is None and missing:
                leaves[at] = NAMED["NaN"]
                named += 1
            elif type(leaf) not in (float, int):
                raise invalid(field, shown(leaf), NO_NULL if leaf is None else expected)
    try:
        values = np.array(leaves, np.float64)
    except OverflowError:
        raise invalid(field, "a number beyond float64", expected) from None
    with np.errstate(over="ignore"):
        held = values.astype(dtype, copy=False)
    if values.size - np.count_nonzero(np.isfinite(held)) != named:
        wide = values.size - np.count_nonzero(np.isfinite(values)) != named
        raise invalid(field, f"a number beyond {'float64' if wide else dtype}", expected)
    return values


def _integers(leaves: list[Any], field: str) -> Array:
    if set(map(type, leaves)) - {int}:
        for at, leaf in enumerate(leaves):
            if type(leaf) is str and len(leaf) <= MAX_DIGITS and leaf.isascii() and leaf.removeprefix("-").isdecimal():
                leaves[at] = int(leaf)
            elif type(leaf) is not int:
                raise invalid(field, shown(leaf), INTEGERS)
    try:
        return np.array(leaves, np.int64)
    except OverflowError:
        raise invalid(field, "a number beyond int64", INTEGERS) from None


def _written(value: Any, write: Callable[[Any], Any]) -> Any:
    """Writes each number of nested lists, or one number."""
    return [_written(item, write) for item in value] if isinstance(value, list) else write(value)


def _float(value: float) -> float | str:
    if value != value:
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value, value)
