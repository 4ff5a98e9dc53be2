"""Inputs of a graph that are neither the time step nor a state: they get a value once, at import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cellkeeper_service.model.missing import as_numbers

from ..refusal import ImportRefused
from ..stack import Array
from .graph import Graph, Value
from .states import listing


def constants_of(graph: Graph, constants: Mapping[str, Array], place: str) -> tuple[dict[str, Array], dict[str, int]]:
    """Returns the values in the graph's dtypes.

    Also returns the batch axes of those of one number for each session, such as a Triton model's control inputs [B, 1].
    """
    given = {}
    repeated: dict[str, int] = {}
    for name, value in constants.items():
        where = f"{place}: constant {name}"
        if name not in graph.inputs:
            raise ImportRefused(where, f"no such input. {listing(graph)}")
        wanted = graph.inputs[name]
        try:
            array = as_numbers(value).astype(wanted.dtype)
        except (TypeError, ValueError) as error:
            raise ImportRefused(where, f"got {value!r}, expected {wanted}") from error
        dims = wanted.dims
        fits = dims is None or (
            len(dims) == array.ndim
            and all(not isinstance(d, int) or d == s for d, s in zip(dims, array.shape, strict=True))
        )
        if not fits and array.size == 1 and dims is not None and _takes_one_number(wanted):
            array, fits = array.reshape([1] * len(dims)), True
            if wanted.free:
                repeated[name] = wanted.free[0]
        same = np.array_equal(array.astype(np.float64), np.asarray(value, np.float64).reshape(array.shape))
        if not fits or (wanted.dtype != "float32" and not same) or not np.isfinite(array.astype(np.float64)).all():
            raise ImportRefused(where, f"got shape {list(array.shape)} {value!r}, expected {wanted}")
        given[name] = array
    return given, repeated


def suggestion(chosen: Sequence[Value], left: Sequence[Value]) -> str:
    """Suggests what to do about the inputs `left`.

    Some look like settings of the model (one number, or a boolean), others like further inputs of a time step, besides
    those chosen; one number for each session may be either.
    """
    settings = [value for value in left if _takes_one_number(value)]
    words = [f"{value.name}={'true' if value.dtype == 'bool' else 'NUMBER'}" for value in settings]
    text = f". They may be constants: --constant {','.join(words)}" if words else ""
    steps = [*chosen, *(value for value in left if value not in settings or not _is_setting(value))]
    names = ",".join(value.name for value in steps)
    return text + (f". For several inputs of each time step: --input {names}" if len(steps) > 1 else "")


def _takes_one_number(value: Value) -> bool:
    """Returns True if all axes have length 1, except for one that may be free: the batch."""
    return (
        value.dims is not None
        and len(value.free) <= 1
        and all(size == 1 for size in value.dims if isinstance(size, int))
    )


def _is_setting(value: Value) -> bool:
    """Returns True for a boolean, or one whole number for all sessions: no input of a time step is like that."""
    return value.dtype == "bool" or (not value.dtype.startswith("float") and not value.free)
