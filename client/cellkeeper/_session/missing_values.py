"""Missing values in what a caller gives: masked elements of numpy arrays, None, and NA of pandas.

`numpy.asarray` drops a mask, so that the fill values below it become data, and makes an array of objects of the others.
The service's `model/missing.py` does the same for data that a model is fitted from: the two packages share no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..types import Array

_SCALARS = {float, int, bool, type(None)}  # known to be no sequences: a look at each kind costs more than a conversion


def as_numbers(given: ArrayLike) -> Array:
    """An array of numbers, without a mask. What is missing is NaN, which makes floats of integers.

    What is no number stays what it is: the dtype tells. Raises TypeError and ValueError where numpy does.
    """
    if isinstance(given, np.ma.MaskedArray):
        array = _unmasked(given)
    elif isinstance(given, Sequence) and _holds_masks(given):
        array = np.asarray(_without_masks(given))
    else:
        array = np.asarray(given)
        if array.dtype.kind in "US" and not isinstance(given, np.ndarray):
            array = np.asarray(given, object)  # one text among numbers makes texts of them all
    return _from_objects(array) if array.dtype.kind == "O" else array


def is_missing(value: object) -> bool:
    """Whether an element says that there is no value. NaN is a number here."""
    kind = type(value)
    return (
        value is None or value is np.ma.masked or (kind.__name__ == "NAType" and kind.__module__.startswith("pandas."))
    )


def _from_objects(array: Array) -> Array:
    """Numbers where all elements are numbers or missing; otherwise the array as it is."""
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
    if isinstance(given, str | bytes):
        return False
    kinds = set(map(type, given)) - _SCALARS
    if not kinds:
        return False
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        return True
    nested = {kind for kind in kinds if issubclass(kind, Sequence)}
    return bool(nested) and any(_holds_masks(inner) for inner in given if type(inner) in nested)


def _without_masks(given: object) -> Any:
    """Nested lists, with None for what is masked."""
    if isinstance(given, np.ma.MaskedArray):
        return given.tolist(None)
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return [_without_masks(inner) for inner in given]
    return given
