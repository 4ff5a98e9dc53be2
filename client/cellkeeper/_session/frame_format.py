"""What the items of one frame have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

MAX_FORMATS = 256
CREATED, REPLAYED = 1, 2  # flags of an item in a reply


class Layout(NamedTuple):
    """The model, the wire's number of its input's dtype, the shape of one time step."""

    model: str
    dtype: Any
    shape: tuple[int, ...]


class FrameFormat:
    """A layout and the outputs requested. There is one object of each, so that formats are compared by identity."""

    __slots__ = ("layout", "outputs")

    def __init__(self, layout: Layout, outputs: tuple[str, ...]) -> None:
        self.layout = layout
        self.outputs = outputs


class FrameFormats:
    """All formats of one client. Beyond MAX_FORMATS they are created again, which only makes frames smaller."""

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
