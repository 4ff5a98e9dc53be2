"""What the items of one frame have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

CREATED, REPLAYED = 1, 2  # flags of an item in a reply


class InputLayout(NamedTuple):
    """One of several inputs: its name, the wire's number for its dtype, the shape of one time step."""

    name: str
    dtype: Any
    shape: tuple[int, ...]


class Layout(NamedTuple):
    """The model, the wire's number for its input's dtype, the shape of one time step.

    If there are several inputs, also the layout of each, and the structured dtype of a time step.
    """

    model: str
    dtype: Any
    shape: tuple[int, ...]
    inputs: tuple[InputLayout, ...] = ()
    packed: np.dtype[Any] | None = None


class FrameFormat:
    """A layout and the requested outputs. A client has one object for each pair; they are compared by identity."""

    __slots__ = ("layout", "outputs")

    def __init__(self, layout: Layout, outputs: tuple[str, ...]) -> None:
        self.layout = layout
        self.outputs = outputs
