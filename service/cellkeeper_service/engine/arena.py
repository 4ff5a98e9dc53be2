"""Rows of session state in host memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cellkeeper_service.domain.engine import Rows

Floats = NDArray[np.float32]


class Arena:
    """One float32 array [rows, width] for each leaf; a row of all leaves, one after another, is one state.

    A checkpoint's bytes are a row's values in that order, little-endian.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self._widths = tuple(widths)
        self._leaves: list[Floats] = []
        self.reserve(0)

    def reserve(self, rows: int) -> None:
        self._leaves = [np.zeros((rows, width), np.float32) for width in self._widths]

    def gather(self, rows: Rows, into: Sequence[Floats]) -> None:
        """Copies rows [B] into one [B, width] array for each leaf. Raises IndexError for a row out of range."""
        if len(rows) == 1:  # an int index skips the machinery for index arrays
            row = int(rows[0])
            for leaf, target in zip(self._leaves, into, strict=True):
                target[0] = leaf[row]
            return
        # "clip" writes straight into the target, "raise" would buffer it; so the range is checked here: without its
        # sign, a negative row is a large one
        if rows.size and int(rows.view(np.uintp).max()) >= len(self._leaves[0]):
            raise IndexError(f"rows {rows.min()}..{rows.max()}, the arena has {len(self._leaves[0])}")
        for leaf, target in zip(self._leaves, into, strict=True):
            leaf.take(rows, axis=0, out=target, mode="clip")

    def scatter(self, rows: Rows, values: Sequence[Floats]) -> None:
        """The inverse of `gather`."""
        if len(rows) == 1:
            row = int(rows[0])
            for leaf, value in zip(self._leaves, values, strict=True):
                leaf[row] = value[0]
            return
        for leaf, value in zip(self._leaves, values, strict=True):
            leaf[rows] = value

    def write(self, rows: Rows, states: NDArray[np.uint8]) -> None:
        """Sets whole states: uint8 [B, state_bytes]."""
        values = np.ascontiguousarray(states).view("<f4")
        start = 0
        for leaf in self._leaves:
            leaf[rows] = values[:, start : start + leaf.shape[1]]
            start += leaf.shape[1]

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Whole states: uint8 [B, state_bytes]."""
        parts = [leaf[rows] for leaf in self._leaves]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return np.ascontiguousarray(values, "<f4").view(np.uint8)
