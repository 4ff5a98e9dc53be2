"""Runs: the work of one session inside the ticks, slice by slice."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from cellkeeper_service.domain.engine import Array

from .requests import CarryOver, GetState, Step

if TYPE_CHECKING:
    from .hot import Hot
    from .line import Line


class Kind(Enum):
    CHUNK = "chunk"  # a step to be committed
    PEEK = "peek"  # a step to be forgotten
    REBUILD = "rebuild"  # the log after a checkpoint, to make a session hot again
    READ = "read"  # no steps: the state as it is
    KEEP = "keep"  # the same, for another version of the model
    RERUN = "rerun"  # a window that gives another life its first state


@dataclass(slots=True, eq=False)
class Collect:
    """Outputs of time steps first..last - 1 of a run, for one request."""

    request: Step | GetState | CarryOver
    first: int
    last: int
    slices: dict[str, list[Array]] = field(default_factory=dict)
    state: bytes | None = None

    def outputs(self) -> dict[str, Array]:
        """By name: [last - first, ...]."""
        return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in self.slices.items()}


@dataclass(slots=True, eq=False)
class Run:
    """`data`: the inputs of `steps` time steps, but for the last `unfed` ones, which predictions become one by one.
    `cuts`: offsets at which a slice has to end, ascending, because the state there is wanted."""

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
    unfed: int = 0
    at: int = 0  # steps done
    in_call: bool = False
    cancelled: bool = False

    def slice_steps(self, max_slice_steps: int) -> int:
        """Length of the next slice: the largest power of two that fits, so that slices of many sessions meet in one
        engine call without padding."""
        left = self.steps - self.unfed - self.at
        for cut in self.cuts:
            if cut > self.at:
                left = min(left, cut - self.at)
                break
        left = min(left, max_slice_steps)
        return 1 << (left.bit_length() - 1) if left > 0 else 0

    @property
    def hungry(self) -> bool:
        """The next time step's input is the prediction after what was computed."""
        return 0 < self.unfed == self.steps - self.at

    def feed(self, prediction: Array) -> None:
        """prediction: of the last time step computed."""
        spec, step = self.hot.served.spec, self.collects[0].request
        if spec.feedback is None or not isinstance(step, Step) or step.rollout is None:
            raise RuntimeError("a run is to be rolled out that cannot be")
        known = step.rollout.known[step.rollout.steps - self.unfed]
        following = spec.feedback.next_input(prediction, known)
        self.data += following.astype(spec.input.numpy_dtype).tobytes()
        self.unfed -= 1

    @property
    def read_row(self) -> int:
        """A chunk leaves the row it started from as it was; a rebuild has nothing to lose."""
        return self.hot.row if self.at == 0 else self.hot.other_row

    @property
    def write_row(self) -> int:
        return self.hot.other_row
