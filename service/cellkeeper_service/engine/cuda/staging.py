"""Pinned host memory through which calls travel: one copy up, one down, and the event that says both are done."""

from __future__ import annotations

from torch import Tensor

from .device import Device


class Staging:
    """Of one call at a time. up, down: uint8, at least as large as `take` asked for."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.up: Tensor = device.pinned(0)
        self.down: Tensor = device.pinned(0)
        self.done = device.event()

    def grow(self, up_bytes: int, down_bytes: int) -> None:
        if self.up.numel() < up_bytes:
            self.up = self._device.pinned(up_bytes)
        if self.down.numel() < down_bytes:
            self.down = self._device.pinned(down_bytes)


class StagingPool:
    """Stagings that no call is using; there are as many as there were calls under way at the same time."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._free: list[Staging] = []

    def take(self, up_bytes: int, down_bytes: int) -> Staging:
        staging = self._free.pop() if self._free else Staging(self._device)
        staging.grow(up_bytes, down_bytes)
        return staging

    def give(self, staging: Staging) -> None:
        """Only after its event."""
        self._free.append(staging)
