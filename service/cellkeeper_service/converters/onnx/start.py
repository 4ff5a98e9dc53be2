"""Refuses a graph that begins a sequence with other states than its bundle would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..refusal import ImportRefused
from ..stack import Array
from .source import Declaration

TOLERANCE = 1e-3  # of the largest value, for rounding; other states change much more


def check_start(session: Any, declaration: Declaration, initial: Mapping[str, Array], x: Array, place: str) -> None:
    """Raises ImportRefused if a constant is the control input START, with other results than from states of zeros.

    Some graphs replace their states where such an input is 1: their results do not depend on the states then. As a
    constant it is 0, so the bundle's first states must be the ones that the graph would set. States passed as initial
    are taken as they are. x: time steps, [T, ...]. initial: of one session, by input name.
    """
    another = next((step for step in x if step.tobytes() != x[0].tobytes()), None)
    if another is None or set(initial) >= set(declaration.states):
        return
    first = _first(declaration, initial)
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
                f"of zeros. If it sets its states there, pass those as initial (--initial FILE), each of "
                f"{list(declaration.states)}; if it computes with the number otherwise, no constant can replace it",
            )


def _first(declaration: Declaration, initial: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the bundle's states of a new session, as the graph takes them."""
    given = {name: declaration.batched(name, value, 1) for name, value in initial.items()}
    return declaration.zeros(1) | given


def _drawn(declaration: Declaration, seed: int) -> dict[str, Array]:
    draw = np.random.default_rng(seed)
    return {
        name: draw.standard_normal(zero.shape).astype(zero.dtype)
        if zero.dtype.kind == "f"
        else draw.integers(1, 9, zero.shape).astype(zero.dtype)
        for name, zero in declaration.zeros(1).items()
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
