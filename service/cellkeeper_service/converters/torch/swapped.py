"""Detects a forward that returns two states of one shape in swapped order, which their shapes cannot show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ..refusal import ImportRefused
from ..stack import Array
from .source import CarriedSource

CLOSE = 1e-4  # relative to the largest output


def refuse_swapped(source: CarriedSource, names: Sequence[str], inputs: Array, place: str) -> None:
    """Raises ImportRefused, naming two states, if a forward returns them in swapped order.

    That is: single steps give what the whole sequence gives only when these two are exchanged after each step. Only a
    forward that takes sequences can be checked. inputs: a sequence, [T, ...].
    """
    shapes = source.state_shapes
    pairs = [pair for pair in combinations(range(len(names)), 2) if shapes[pair[0]] == shapes[pair[1]]]
    if not source.windowed or not pairs:
        return
    whole = source.whole(inputs)["prediction"]
    if _close(source.stepped(inputs)["prediction"], whole):
        return
    for first, second in pairs:
        order = list(range(len(names)))
        order[first], order[second] = second, first
        if _close(source.stepped(inputs, order)["prediction"], whole):
            raise ImportRefused(
                f"{place}: states {names[first]} and {names[second]}",
                "are returned by its forward in the other order: with the two exchanged, its steps match the whole "
                "sequence; return them in the order in which they are taken",
            )


def _close(steps: Array, whole: Array) -> bool:
    known = np.isfinite(whole).reshape(len(whole), -1).all(axis=1)  # at other time steps the source gives no output
    size = float(np.abs(whole[known]).max(initial=1e-30))
    return bool(known.any()) and bool((np.abs(steps[known] - whole[known]) <= CLOSE * size).all())
