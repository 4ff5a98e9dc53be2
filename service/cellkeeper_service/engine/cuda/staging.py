"""Pinned host memory for transfers: a buffer up, and a buffer down."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cellkeeper_service.domain.engine import Array

from .buckets import Layout
from .device import CudaDevice


@dataclass(frozen=True, slots=True)
class SliceViews:
    """Views of the parts of the two buffers that belong to a slice, by its layout."""

    read: Array
    write: Array
    inputs: Array
    finite: Array
    outputs: dict[str, Array]


class Staging:
    """The buffers of one call at a time. up, down: uint8, at least as large as `grow` was last told."""

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._first_slices: dict[Layout, SliceViews] = {}
        self.up: Tensor = device.pinned(0)
        self.down: Tensor = device.pinned(0)

    def grow(self, up_bytes: int, down_bytes: int) -> None:
        if self.up.numel() < up_bytes:
            self.up = self._device.pinned(up_bytes)
            self._first_slices.clear()
        if self.down.numel() < down_bytes:
            self.down = self._device.pinned(down_bytes)
            self._first_slices.clear()

    def views(self, layout: Layout, up_at: int, down_at: int) -> SliceViews:
        """Returns the views of a slice that begins at these bytes. Those of a first slice are cached: most calls have
        no other, and making them takes as long as everything else that the host does for a call."""
        if up_at or down_at:
            return self._made_views(layout, up_at, down_at)
        if layout not in self._first_slices:
            self._first_slices[layout] = self._made_views(layout, 0, 0)
        return self._first_slices[layout]

    def _made_views(self, layout: Layout, up_at: int, down_at: int) -> SliceViews:
        read, write, inputs = (part.of(self.up, up_at).numpy() for part in (layout.read, layout.write, layout.inputs))
        outputs = {name: part.of(self.down, down_at).numpy() for name, part in layout.outputs.items()}
        return SliceViews(read, write, inputs, layout.finite.of(self.down, down_at).numpy(), outputs)
