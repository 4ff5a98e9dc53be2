"""The meter: what the core and its loop report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SAMPLE_EVERY_CALLS = 64
"""`Meter.state_change` samples one session in every SAMPLE_EVERY_CALLS engine calls."""

EvictionReason = Literal["capacity", "stale", "retired"]
StoreCallName = Literal["load", "commit", "delete", "scan", "probe"]


@dataclass(slots=True)
class StepTimes:
    """Seconds that one chunk spent in each phase."""

    queue: float = 0.0  # waiting for a tick, or for its session's earlier requests
    load: float = 0.0  # reading its record and rebuilding its state
    compute: float = 0.0  # from its first slice to its last
    commit: float = 0.0  # waiting for the store, and in it
    total: float = 0.0


class Meter:
    """Counts nothing; the metrics package overrides every method. Each counts one event, or `count` of them.

    steps_done: `count` chunks of `steps` time steps each have their results; all of them took `times`.
    state_change: norm is the Euclidean norm of a state after a chunk. relative_change is the norm of its difference
    from the state before, divided by the larger of the two states' norms: 0..2, and 0 if both are zero.
    """

    def steps_done(self, model: str, steps: int, times: StepTimes, replayed: bool, count: int) -> None: ...
    def rejected(self, reason: str) -> None: ...
    def tick(self, model: str, batch: int, steps: int) -> None: ...
    def loaded(self, model: str, hot: bool) -> None: ...
    def rebuilt(self, model: str, steps: int) -> None: ...
    def committed(self, outcome: str, count: int) -> None: ...
    def checkpointed(self, model: str) -> None: ...
    def evicted(self, model: str, reason: EvictionReason) -> None: ...
    def non_finite(self, model: str) -> None: ...
    def store_call(self, call: StoreCallName, items: int, seconds: float, failed: bool) -> None: ...
    def state_change(self, model: str, norm: float, relative_change: float) -> None: ...
    def frame(self, direction: str, items: int) -> None: ...
