"""The bounds of what sessions may hold, and the clock they are measured with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

MAX_CALL_ITEMS = 1024
"""Sessions in one call of the store: while Redis runs a script it serves nobody else."""


@dataclass(frozen=True, slots=True)
class TickLimits:
    """max_slice_steps: a long chunk is computed in slices of at most so many steps.
    max_long_steps: time steps, summed over sessions, that slices may add to one tick, so that long chunks and
    log replays do not hold up single steps.
    """

    max_slice_steps: int = 16
    max_long_steps: int = 512


@dataclass(frozen=True, slots=True)
class Limits:
    """max_requests: unanswered requests over all sessions. max_request_bytes: inputs and outputs of those.
    max_session_requests: waiting requests of one session.
    max_log_steps, max_log_bytes: time steps, and bytes of inputs, in a record's input log.
    default_ttl_ms: of new sessions; 0: never forgotten.
    retry_delay_ms: the advice that goes with UNAVAILABLE and QUEUE_FULL. max_conflicts, max_unknowns: how often one
    request is decided again after a commit that lost against another writer, or that was not answered.
    """

    max_requests: int = 65536
    max_request_bytes: int = 512 * 1024 * 1024
    max_session_requests: int = 1024
    max_log_steps: int = 4096
    max_log_bytes: int = 32 * 1024 * 1024
    default_ttl_ms: int = 0
    retry_delay_ms: int = 200
    max_conflicts: int = 1
    max_unknowns: int = 2
    tick: TickLimits = field(default_factory=TickLimits)

    def log_steps(self, step_bytes: int) -> int:
        """Time steps of so many bytes in a record's input log, at the most."""
        return min(self.max_log_steps, self.max_log_bytes // step_bytes)


@dataclass(frozen=True, slots=True)
class Clock:
    """monotonic: seconds, for deadlines and phases. wall_ms: unix milliseconds, for records."""

    monotonic: Callable[[], float]
    wall_ms: Callable[[], int]
