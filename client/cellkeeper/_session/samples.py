"""What a stream reads: samples that are all at hand, or a live source."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any

from numpy.typing import ArrayLike

from ..errors import InvalidArgument
from ..types import Array


def are_at_hand(samples: Iterable[ArrayLike] | AsyncIterable[ArrayLike]) -> bool:
    """Returns True for a list, a tuple, an array, a DataFrame: what has a length and an index. Reading it waits for
    nothing. Everything else may be a live source, whose next sample comes when it comes."""
    return hasattr(samples, "__len__") and hasattr(samples, "__getitem__")


def as_rows(samples: Iterable[ArrayLike], numbers: Callable[[ArrayLike], Array]) -> Iterable[ArrayLike]:
    """The samples one by one: of a DataFrame its rows, where its own iterator gives the names of its columns. numbers:
    makes an array of it. Raises InvalidArgument for what gives no samples."""
    if isinstance(samples, str | bytes | Mapping):
        text = f"samples: got {type(samples).__name__}, expected an iterable of time steps"
        raise InvalidArgument(text, field="samples")
    table: Any = samples
    if hasattr(table, "columns") and hasattr(table, "to_numpy"):
        return numbers(table)
    if not isinstance(samples, Iterable) and not hasattr(samples, "__getitem__"):
        text = f"samples: got {type(samples).__name__}, expected an iterable of time steps"
        raise InvalidArgument(text, field="samples")
    return samples
