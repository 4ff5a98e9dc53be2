"""The bounds of what sessions may hold, and the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_CALL_ITEMS = 1024
"""The most sessions in one call of the store: Redis serves nobody else while it runs a script."""


@dataclass(frozen=True, slots=True)
class Limits:
    """max_requests: unanswered requests over all sessions. max_request_bytes: their inputs and outputs.
    max_session_requests: waiting requests of one session.
    max_log_steps, max_log_bytes: time steps, and bytes of inputs, in a record's input log.
    default_ttl_ms: of new sessions; 0: never forgotten.
    retry_delay_ms: the advice in UNAVAILABLE and QUEUE_FULL.
    max_slice_steps: the longest slice of a chunk. max_long_steps: time steps, summed over sessions, that slices may add
    to one tick, so that long chunks and log replays do not hold up single steps.
    """

    max_requests: int = 65536
    max_request_bytes: int = 512 * 1024 * 1024
    max_session_requests: int = 1024
    max_log_steps: int = 4096
    max_log_bytes: int = 32 * 1024 * 1024
    default_ttl_ms: int = 0
    retry_delay_ms: int = 200
    max_slice_steps: int = 16
    max_long_steps: int = 512

    def log_steps(self, step_bytes: int) -> int:
        """Returns how many time steps of `step_bytes` bytes fit into a record's input log."""
        return min(self.max_log_steps, self.max_log_bytes // step_bytes)


@dataclass(frozen=True, slots=True)
class Clock:
    """monotonic: seconds, for deadlines and phases. wall_ms: unix milliseconds, for records."""

    monotonic: Callable[[], float]
    wall_ms: Callable[[], int]
