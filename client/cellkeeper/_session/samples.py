"""What a stream reads: samples at hand, or a live source."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy import ma
from numpy.typing import ArrayLike

from ..errors import InvalidArgument
from ..types import Array, Sample
from .arguments import invalid


def are_at_hand(samples: Iterable[Sample] | AsyncIterable[Sample]) -> bool:
    """Returns True for what has a length and an index: a list, a tuple, an array, a DataFrame.

    Reading these never blocks. Anything else may be a live source, whose next sample comes in its own time.
    """
    return hasattr(samples, "__len__") and hasattr(samples, "__getitem__")


def as_rows(samples: Iterable[Sample], numbers: Callable[[ArrayLike], Array]) -> Iterable[Sample]:
    """Returns an iterable over the samples. For a DataFrame that is its rows, since iterating it yields column names.

    numbers: converts it to an array. Raises InvalidArgument for what yields no samples.
    """
    if isinstance(samples, str | bytes | Mapping):
        raise invalid("samples", type(samples).__name__, "an iterable of time steps")
    table: Any = samples
    if hasattr(table, "columns") and hasattr(table, "to_numpy"):
        return numbers(table)
    try:
        return iter(samples)
    except TypeError as error:  # also of an array or a tensor without axes
        raise invalid("samples", type(samples).__name__, "an iterable of time steps") from error


def stacked(samples: Sequence[Sample], numbers: Callable[[ArrayLike], Array], first: int) -> Sample:
    """Stacks these samples into one chunk. first: the index of the first in its stream.

    Raises InvalidArgument for a sample that differs in shape, or is not an array.
    """
    names = [*samples[0]] if isinstance(samples[0], Mapping) else None
    for number, sample in enumerate(samples, first):
        came = [*sample] if isinstance(sample, Mapping) else None
        if (came is None) != (names is None) or set(came or ()) != set(names or ()):
            what = type(sample).__name__ if came is None else f"the inputs {', '.join(map(repr, came))}"
            raise of_sample(invalid("inputs", what, "the same as in those before it"), number, 1)
    if names is None:
        return _stacked(samples, numbers, first, "inputs")
    return {name: _stacked([each[name] for each in samples], numbers, first, f"inputs[{name}]") for name in names}  # type: ignore[call-overload,index]


def _stacked(samples: Sequence[Any], numbers: Callable[[ArrayLike], Array], first: int, field: str) -> Array:
    arrays: list[Array] = []
    for number, sample in enumerate(samples, first):
        try:
            arrays.append(numbers(sample))
        except InvalidArgument as error:
            raise of_sample(error, number, 1) from error
        except (TypeError, ValueError) as error:
            text = f"{field}: sample {number} of the stream: got {type(sample).__name__} ({error})"
            raise InvalidArgument(text, reason="INVALID_FIELD", field=field) from error
        if arrays[-1].shape != arrays[0].shape:
            came, others = list(arrays[-1].shape), list(arrays[0].shape)
            raise of_sample(invalid(field, f"shape {came}", f"{others}, as before"), number, 1)
    if any(isinstance(array, ma.MaskedArray) for array in arrays):  # structured: of others, the masks are NaN now
        stack: Array = ma.stack(arrays)
        return stack
    return np.stack(arrays)


def of_sample(error: InvalidArgument, first: int, steps: int) -> InvalidArgument:
    """Returns the error with the samples of the stream, counted from 0, that it is about."""
    if not error.field.startswith("inputs"):
        return error
    which = f"sample {first} of the stream" if steps == 1 else f"samples {first} to {first + steps - 1} of the stream"
    text = error.message.replace(f"{error.field}: ", f"{error.field}: {which}: ", 1)
    return InvalidArgument(text, reason=error.reason, field=error.field)
