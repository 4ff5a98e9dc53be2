"""A request's outputs stay in the batches that computed them; the request keeps where they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cellkeeper_service.domain.engine import Array, Computed

Piece = tuple[Computed, int, int, int]
"""(batch, row, first, last): time steps first..last - 1 of row `row` of a batch."""


def joined(pieces: Sequence[Piece], name: str) -> Array:
    """Returns one output of one request, [T, ...]."""
    parts = [batch.outputs[name][first:last, row] for batch, row, first, last in pieces]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def gather(requests: Iterable[Sequence[Piece]], name: str) -> bytes:
    """Returns one output of many requests, request by request, as raw bytes. Takes neighbours in the same batch from it
    together."""
    parts: list[bytes] = []
    here: tuple[Computed, int, int] | None = None
    rows: list[int] = []
    for pieces in requests:
        for batch, row, first, last in pieces:
            if here is not None and here[0] is batch and here[1] == first and here[2] == last:
                rows.append(row)
                continue
            if here is not None:
                parts.append(_rows(*here, rows, name))
            here, rows = (batch, first, last), [row]
    if here is not None:
        parts.append(_rows(*here, rows, name))
    return b"".join(parts)


def _rows(batch: Computed, first: int, last: int, rows: list[int], name: str) -> bytes:
    """Returns time steps first..last - 1 of these rows, row by row."""
    values = batch.outputs[name]
    if len(rows) == 1:
        return bytes(values[first:last, rows[0]].tobytes())
    if last - first == 1:
        taken = values[first].take(rows, axis=0)
    else:
        taken = values[first:last].take(rows, axis=1).swapaxes(0, 1)
    return bytes(taken.tobytes())
