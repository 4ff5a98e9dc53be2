"""Missing values in a caller's data: masked elements of numpy arrays, None, and the NA of pandas.

`numpy.asarray` drops a mask, so that the fill values under it become data, and turns the others into an array of
objects. The service's `model/missing.py` does the same for data that a model is fitted to; the packages share no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ma  # at once: `np.ma` is imported on its first use, and a child forked meanwhile would wait for ever
from numpy.typing import ArrayLike

from ..types import Array

SCALARS = {float, int, bool, type(None)}  # known not to be sequences; checking a type costs more than a conversion


def as_numbers(given: ArrayLike) -> Array:
    """Converts to an array of numbers without a mask. Missing values become NaN, which turns integers into floats.

    Returns non-numeric data unconverted: check the dtype. Raises TypeError and ValueError where numpy does, and
    ValueError for anything else that an object raises while it is converted, as PyTorch's tensors with gradients do.
    """
    try:
        array = _as_array(given)
        return _from_objects(array) if array.dtype.kind == "O" else array
    except (TypeError, ValueError):
        raise
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def accepted(values: Array, missing: bool) -> Array:
    """Returns which of the floats a model accepts: those that are finite and, if it takes missing values, NaN."""
    return ~np.isinf(values) if missing else np.isfinite(values)


def is_missing(value: object) -> bool:
    """Returns True if the element marks a missing value. NaN counts as a number here."""
    kind = type(value)
    return value is None or value is ma.masked or (kind.__name__ == "NAType" and kind.__module__.startswith("pandas."))


def _as_array(given: ArrayLike) -> Array:
    if isinstance(given, ma.MaskedArray):
        return _unmasked(given)
    if isinstance(given, Sequence) and _holds_masks(given):
        return np.asarray(_without_masks(given))
    array = np.asarray(given)
    if array.dtype.kind in "US" and not isinstance(given, np.ndarray):
        return np.asarray(given, object)  # one string among numbers would turn them all into strings
    return array


def _from_objects(array: Array) -> Array:
    """Converts to numbers if every element is a number or missing; otherwise returns the array as it is."""
    elements = array.ravel().tolist()
    values = np.array([np.nan if is_missing(element) else element for element in elements])
    return values.reshape(array.shape) if values.dtype.kind in "fiub" and values.ndim == 1 else array


def _unmasked(given: ma.MaskedArray[Any, Any]) -> Array:
    if given.dtype.names:  # its fields have masks, and are converted one by one
        return given
    data, mask = np.array(given.data), ma.getmaskarray(given)
    if not mask.any():
        return data
    if data.dtype.kind != "f":
        data = data.astype(object)
    data[mask] = np.nan if data.dtype.kind == "f" else None
    return data


def _holds_masks(given: Sequence[Any]) -> bool:
    if isinstance(given, str | bytes | memoryview):
        return False
    kinds = set(map(type, given)) - SCALARS
    if not kinds:
        return False
    if any(issubclass(kind, ma.MaskedArray) for kind in kinds):
        return True
    nested = {kind for kind in kinds if issubclass(kind, Sequence)}
    return bool(nested) and any(_holds_masks(inner) for inner in given if type(inner) in nested)


def _without_masks(given: object) -> Any:
    """Returns nested lists with None for masked elements."""
    if isinstance(given, ma.MaskedArray):
        return given.tolist(None)
    if isinstance(given, Sequence) and not isinstance(given, str | bytes | memoryview):
        return [_without_masks(inner) for inner in given]
    return given
