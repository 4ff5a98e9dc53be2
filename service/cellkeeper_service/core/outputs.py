"""A request's outputs stay in the batches that computed them: it keeps where they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from cellkeeper_service.domain.engine import Array, Computed


class Piece(NamedTuple):
    """Time steps first..last - 1 of row `row` of one batch."""

    batch: Computed
    row: int
    first: int
    last: int


class Outputs(Mapping[str, Array]):
    """By name, [T, ...]. Gathered when asked for; a frame's encoder may gather by batch instead."""

    __slots__ = ("names", "pieces")

    def __init__(self, names: frozenset[str], pieces: list[Piece]) -> None:
        self.names = names
        self.pieces = pieces

    def __getitem__(self, name: str) -> Array:
        if name not in self.names:
            raise KeyError(name)
        parts = [batch.outputs[name][first:last, row] for batch, row, first, last in self.pieces]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
