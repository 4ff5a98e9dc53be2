"""Inputs of a graph that are neither the time step nor a state: they get a value once, at import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cellkeeper_service.model.missing import as_numbers

from ..refusal import ImportRefused
from ..stack import Array
from .graph import Graph, Value
from .source import Declaration
from .states import listing

TOLERANCE = 1e-3  # of the largest value, for rounding; other states change much more


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
    # no input of a time step is a boolean, or one whole number for all sessions
    no_steps = [
        value for value in settings if value.dtype == "bool" or not (value.dtype.startswith("float") or value.free)
    ]
    steps = [*chosen, *(value for value in left if value not in no_steps)]
    names = ",".join(value.name for value in steps)
    return text + (f". For several inputs of each time step: --input {names}" if len(steps) > 1 else "")


def _takes_one_number(value: Value) -> bool:
    """Returns True if all axes have length 1, except for one that may be free: the batch."""
    return (
        value.dims is not None
        and len(value.free) <= 1
        and all(size == 1 for size in value.dims if isinstance(size, int))
    )


def check_start(session: Any, declaration: Declaration, initial: Mapping[str, Array], x: Array, place: str) -> None:
    """Raises ImportRefused if a constant is the control input START, with other results than from states of zeros.

    Some graphs replace their states where such an input is 1: their results do not depend on the states then. As a
    constant it is 0, so the bundle's first states must be the ones that the graph would set. States passed as initial
    are taken as they are. x: time steps, [T, ...]. initial: of one session, by input name.
    """
    names = [state.input for state in declaration.states]
    another = next((step for step in x if step.tobytes() != x[0].tobytes()), None)
    if another is None or set(initial) >= set(names):
        return
    first = declaration.fresh(1, initial)
    for name, value in declaration.constants.items():
        if value.size != 1 or value.item() not in (0, 1):
            continue
        other = (1 - value.astype(np.int64)).astype(value.dtype)
        starting = replace(declaration, constants={**declaration.constants, name: other})
        try:
            started = _results(session, starting, x[0], _drawn(declaration, 1))
            if not _alike(started, _results(session, starting, x[0], _drawn(declaration, 2))):
                continue  # depends on the states
            if _alike(started, _results(session, starting, another, _drawn(declaration, 1))):
                continue  # does not depend on the time step either: not a start, but a switch that stops everything
            from_first = _results(session, declaration, x[0], first)
        except Exception:  # noqa: BLE001 - onnxruntime's errors have no public base class; other trials report them
            continue
        if not _alike(started, from_first):
            raise ImportRefused(
                f"{place}: constant {name}",
                f"where it is {other.item():g}, the graph starts a sequence, and gives other results than from states "
                f"of zeros. If it sets its states there, pass those as initial (--initial FILE), each of {names}; if "
                "it computes with the number otherwise, no constant can replace it",
            )


def _drawn(declaration: Declaration, seed: int) -> dict[str, Array]:
    draw = np.random.default_rng(seed)
    return {
        name: draw.standard_normal(zero.shape).astype(zero.dtype)
        if zero.dtype.kind == "f"
        else draw.integers(1, 9, zero.shape).astype(zero.dtype)
        for name, zero in declaration.fresh(1).items()
    }


def _results(session: Any, declaration: Declaration, step: Array, states: dict[str, Array]) -> list[Array]:
    """Returns the outputs and the new states of one time step of one session."""
    results = declaration.run(session, step[None, None], states)
    return [np.asarray(value, np.float64) for value in results.values()]


def _alike(some: list[Array], others: list[Array]) -> bool:
    return all(
        np.allclose(one, other, rtol=0, atol=TOLERANCE * max(1e-6, float(np.abs(one).max(initial=0))), equal_nan=True)
        for one, other in zip(some, others, strict=True)
    )
