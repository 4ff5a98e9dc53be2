"""What the items of one frame have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..types import STATE_PREFIX, TensorSpec

CREATED, REPLAYED = 1, 2  # flags of an item in a reply


class Layout(NamedTuple):
    """The model, the wire's number for its input's dtype, a time step's shape and bytes, the names of the states.

    If there are several inputs, also each of them, and the structured dtype of a time step.
    """

    model: str
    dtype: Any
    shape: tuple[int, ...]
    step_bytes: int
    states: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    packed: np.dtype[Any] | None = None


class FrameFormat:
    """A layout and the requested outputs. A client has one object for each pair; they are compared by identity.

    expected: the names of the outputs that a reply has, in the order of the request.
    """

    __slots__ = ("expected", "layout", "outputs")

    def __init__(self, layout: Layout, outputs: tuple[str, ...]) -> None:
        self.layout = layout
        self.outputs = outputs
        self.expected = expected_outputs(outputs, layout.states)


def expected_outputs(outputs: Sequence[str], states: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of what a reply has if these outputs are requested; "state" stands for all state tensors."""
    names: list[str] = []
    for output in outputs:
        names += [f"{STATE_PREFIX}{state}" for state in states] if output == "state" else [output]
    return tuple(dict.fromkeys(names))
