"""Rows of session state in host memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from cellkeeper_service.domain.engine import Array, Rows
from cellkeeper_service.domain.spec import TensorSpec

Floats = NDArray[np.float32]
WholeRows = NDArray[np.void]

FLOAT_BYTES = 4


def whole_rows(values: Array) -> WholeRows:
    """Returns a view [B] of [B, width] whose items are whole rows: numpy copies an item of any size as one block."""
    return values.view(np.dtype((np.void, values.shape[1] * values.itemsize)))[:, 0]


class Arena:
    """Rows of several leaves, each of a given width in bytes. Row i of all leaves, one after another, is one state.

    A checkpoint has a row's values in that order, little-endian.
    """

    def __init__(self, widths_bytes: Sequence[int]) -> None:
        self._widths = tuple(widths_bytes)
        self.reserve(0)

    def reserve(self, rows: int) -> None:
        self._rows = [whole_rows(np.zeros((rows, width), np.uint8)) for width in self._widths]
        self._count = rows

    def gather(self, rows: Rows, into: Sequence[WholeRows]) -> None:
        """Copies rows [B] into the `whole_rows` of one [B, width] array for each leaf. Raises IndexError for a row out
        of range."""
        # "clip" writes straight into the target, while "raise" would use a buffer, so the range is checked here; in a
        # list, because with cold caches numpy takes several times as long to find a maximum
        numbers = rows.tolist()
        if min(numbers) < 0 or max(numbers) >= self._count:
            raise IndexError(f"rows {min(numbers)}..{max(numbers)}, the arena has {self._count}")
        for leaf, target in zip(self._rows, into, strict=True):
            leaf.take(rows, 0, target, "clip")

    def scatter(self, rows: Rows, values: Sequence[WholeRows]) -> None:
        """Copies values into rows [B]; the inverse of `gather`."""
        for leaf, value in zip(self._rows, values, strict=True):
            leaf[rows] = value

    def write(self, rows: Rows, states: NDArray[np.uint8]) -> None:
        """Writes whole states: uint8 [B, state_bytes]."""
        start = 0
        for leaf, width in zip(self._rows, self._widths, strict=True):
            leaf[rows] = whole_rows(np.ascontiguousarray(states[:, start : start + width]))
            start += width

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Reads whole states: uint8 [B, state_bytes]."""
        parts = [leaf[rows].view(np.uint8).reshape(len(rows), -1) for leaf in self._rows]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def state_tensors(states: Array, specs: Iterable[TensorSpec]) -> list[Array]:
    """Returns each tensor of the states as [B, values] in its own dtype. states: uint8 [B, state_bytes]."""
    tensors, start = [], 0
    for spec in specs:
        part = np.ascontiguousarray(states[:, start : start + spec.nbytes])
        tensors.append(part.view(spec.numpy_dtype))
        start += spec.nbytes
    return tensors
