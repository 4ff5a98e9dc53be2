"""Runs: the work of one session inside the ticks, slice by slice."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from cellkeeper_service.domain.engine import Array

from .requests import GetState, Step

if TYPE_CHECKING:
    from .hot import Hot
    from .line import Line


class Kind(Enum):
    CHUNK = "chunk"  # a step to be committed
    PEEK = "peek"  # a step to be forgotten
    REBUILD = "rebuild"  # the log after a checkpoint, to make a session hot again
    READ = "read"  # no steps: the state as it is


@dataclass(slots=True, eq=False)
class Collect:
    """Outputs of time steps first..last - 1 of a run, for one request."""

    request: Step | GetState
    first: int
    last: int
    slices: dict[str, list[Array]] = field(default_factory=dict)
    state: bytes | None = None

    def outputs(self) -> dict[str, Array]:
        """By name: [last - first, ...]."""
        return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in self.slices.items()}


@dataclass(slots=True, eq=False)
class Run:
    """`data`: the inputs of `steps` time steps. `cuts`: offsets at which a slice has to end, ascending, because the
    state there is wanted."""

    line: Line
    hot: Hot
    kind: Kind
    data: bytes
    steps: int
    collects: list[Collect]
    wanted: frozenset[str]
    cuts: list[int] = field(default_factory=list)
    checkpoint_at: int | None = None  # offset at which the state becomes a checkpoint candidate
    checkpoint_state: bytes | None = None
    at: int = 0  # steps done
    in_call: bool = False
    cancelled: bool = False

    def slice_steps(self, max_slice_steps: int) -> int:
        """Length of the next slice: the largest power of two that fits, so that slices of many sessions meet in one
        engine call without padding."""
        left = self.steps - self.at
        for cut in self.cuts:
            if cut > self.at:
                left = min(left, cut - self.at)
                break
        left = min(left, max_slice_steps)
        return 1 << (left.bit_length() - 1) if left > 0 else 0

    @property
    def read_row(self) -> int:
        """A chunk leaves the row it started from as it was; a rebuild has nothing to lose."""
        return self.hot.row if self.at == 0 else self.hot.other_row

    @property
    def write_row(self) -> int:
        return self.hot.other_row
