"""Puts named columns into the order of a model's features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidArgument
from .missing_values import SCALARS, as_numbers

SHOWN_NAMES = 20  # in an error

_PLAIN = {*SCALARS, np.ndarray}  # known to have no names


def in_order(given: Any, wanted: Sequence[str], field: str) -> Any:
    """Puts the features of a DataFrame [T, F], a Series [F], a dict (of F numbers, or of F columns [T]) or nested lists
    of such into the order `wanted`.

    Returns anything else as it is. Raises InvalidArgument, which lists missing, unknown and repeated names, and
    ValueError for columns of different lengths.
    """
    names = _names(given)
    if names is not None:
        return _ordered(given, names, wanted, field)
    if isinstance(given, list | tuple) and not _PLAIN.issuperset(map(type, given)):
        return [in_order(item, wanted, field) for item in given]
    return given


def wrong_columns(names: Sequence[Any], wanted: Sequence[str]) -> str:
    """Says which of these columns are missing, unknown or repeated, and what was expected; empty: none of them."""
    known, given = set(wanted), set(names)
    wrong = {
        "missing": [name for name in wanted if name not in given],
        "unknown": [name for name in names if name not in known],
        "more than once": [name for name, count in Counter(names).items() if count > 1],
    }
    came = "; ".join(f"{what}: {_shown(some)}" for what, some in wrong.items() if some)
    return came and f"got other columns ({came}), expected {_shown(wanted)} in any order"


def _names(given: Any) -> list[Any] | None:
    """Returns the names of the columns, of a Series' elements or of a dict's; None if there are none."""
    if isinstance(given, Mapping):
        return [*given]
    labels = getattr(given, "columns", None)
    if labels is None and type(given).__name__ == "Series":
        labels = getattr(given, "index", None)
    return None if labels is None or callable(labels) else [*labels]


def _ordered(given: Any, names: list[Any], wanted: Sequence[str], field: str) -> Any:
    if names != [*wanted] and (wrong := wrong_columns(names, wanted)):
        raise InvalidArgument(f"{field}: {wrong}", reason="INVALID_FIELD", field=field)
    if isinstance(given, Mapping):
        return np.stack([as_numbers(given[name]) for name in wanted], axis=-1)
    return given if names == [*wanted] else given[[*wanted]]


def _shown(names: Sequence[Any]) -> str:
    return ", ".join(map(repr, names[:SHOWN_NAMES])) + (", ..." if len(names) > SHOWN_NAMES else "")
