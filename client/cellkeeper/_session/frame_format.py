"""What the items of one frame have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

MOST_KINDS = 256


class Layout(NamedTuple):
    """The model, the wire's number of its input's dtype, the shape of one time step."""

    model: str
    dtype: Any
    shape: tuple[int, ...]


class Kind:
    """A layout and the outputs wanted. There is one object of each, so that kinds are compared by identity."""

    __slots__ = ("layout", "outputs")

    def __init__(self, layout: Layout, outputs: tuple[str, ...]) -> None:
        self.layout = layout
        self.outputs = outputs


class Kinds:
    """All kinds of one client. When there are too many they are made anew, which only makes frames smaller."""

    def __init__(self) -> None:
        self._known: dict[tuple[Layout, tuple[str, ...]], Kind] = {}

    def of(self, layout: Layout, outputs: tuple[str, ...]) -> Kind:
        key = (layout, outputs)
        kind = self._known.get(key)
        if kind is None:
            if len(self._known) >= MOST_KINDS:
                self._known.clear()
            kind = self._known[key] = Kind(layout, outputs)
        return kind
