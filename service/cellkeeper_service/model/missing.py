"""Missing values in data that a model is fitted to or run on: masked elements of arrays, None, and pandas' NA.

`numpy.asarray` drops a mask, so that the values under it become data, and makes object arrays of the others. The client
(`_session/missing_values.py`) handles its inputs in the same way; the two packages share no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cellkeeper_service.domain.engine import Array

_SCALARS = {float, int, bool, type(None)}  # known not to be sequences: checking costs more than converting them


def as_numbers(given: ArrayLike) -> Array:
    """Returns an array of numbers without a mask. Missing values become NaN, which turns integers into floats.

    Data that are not numbers stay as they are, as the dtype shows. Raises TypeError and ValueError where numpy does.
    """
    if isinstance(given, np.ma.MaskedArray):
        array = _unmasked(given)
    elif isinstance(given, Sequence) and _holds_masks(given):
        array = np.asarray(_without_masks(given))
    else:
        array = np.asarray(given)
    return _from_objects(array) if array.dtype.kind == "O" else array


def is_missing(value: object) -> bool:
    """Returns True if the element stands for a missing value. NaN counts as a number here."""
    kind = type(value)
    return (
        value is None or value is np.ma.masked or (kind.__name__ == "NAType" and kind.__module__.startswith("pandas."))
    )


def _from_objects(array: Array) -> Array:
    """Returns numbers if all elements are numbers or missing, otherwise the array as it is."""
    elements = array.ravel().tolist()
    values = np.array([np.nan if is_missing(element) else element for element in elements])
    return values.reshape(array.shape) if values.dtype.kind in "fiub" and values.ndim == 1 else array


def _unmasked(given: np.ma.MaskedArray[Any, Any]) -> Array:
    data, mask = np.array(given.data), np.ma.getmaskarray(given)
    if mask.dtype.kind != "b" or not mask.any():
        return data
    if data.dtype.kind != "f":
        data = data.astype(object)
    data[mask] = np.nan if data.dtype.kind == "f" else None
    return data


def _holds_masks(given: Sequence[Any]) -> bool:
    if isinstance(given, str | bytes | memoryview):
        return False
    kinds = set(map(type, given)) - _SCALARS
    if not kinds:
        return False
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        return True
    nested = {kind for kind in kinds if issubclass(kind, Sequence)}
    return bool(nested) and any(_holds_masks(inner) for inner in given if type(inner) in nested)


def _without_masks(given: object) -> Any:
    """Returns nested lists, with None for masked elements."""
    if isinstance(given, np.ma.MaskedArray):
        return given.tolist(None)
    if isinstance(given, Sequence) and not isinstance(given, str | bytes | memoryview):
        return [_without_masks(inner) for inner in given]
    return given
