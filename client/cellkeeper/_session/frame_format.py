"""What the items of one frame have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

MAX_FORMATS = 256
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
    """A layout and the requested outputs. There is one object for each pair, so formats are compared by identity."""

    __slots__ = ("layout", "outputs")

    def __init__(self, layout: Layout, outputs: tuple[str, ...]) -> None:
        self.layout = layout
        self.outputs = outputs


class FrameFormats:
    """All formats of one client. Past MAX_FORMATS they are created anew, which only makes frames smaller."""

    def __init__(self) -> None:
        self._known: dict[tuple[Layout, tuple[str, ...]], FrameFormat] = {}

    def of(self, layout: Layout, outputs: tuple[str, ...]) -> FrameFormat:
        key = (layout, outputs)
        frame_format = self._known.get(key)
        if frame_format is None:
            if len(self._known) >= MAX_FORMATS:
                self._known.clear()
            frame_format = self._known[key] = FrameFormat(layout, outputs)
        return frame_format
