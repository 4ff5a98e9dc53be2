"""Which errors are worth another try, and what is raised when the time for tries is over."""

from __future__ import annotations

from ..errors import CellkeeperError, CommitConflict, DeadlineExceeded, QueueFull, QuotaExceeded, Unavailable


def worth_retrying(error: CellkeeperError) -> bool:
    """For calls that are safe to send again: may another try end differently?"""
    if isinstance(error, QuotaExceeded):
        return error.retry_delay_ms > 0
    return isinstance(error, (Unavailable, QueueFull, CommitConflict, DeadlineExceeded))


def out_of_time(
    timeout: float, spent: float, target: str, last: CellkeeperError | None, why: str = ""
) -> DeadlineExceeded:
    """The deadline passed. timeout: seconds that the caller gave; spent: seconds that it took. target: where the answer
    was to come from. `why` and `last` say what was in the way."""
    text = f"no answer from {target} within {timeout:g} s"
    if abs(spent - timeout) > max(0.1, timeout / 20):
        text = f"no answer from {target} in {spent:.3g} s (timeout: {timeout:g} s)"
    if why:
        text += f"; {why}"
    if last is not None:
        text += f"; last: {last.message}"
    error = DeadlineExceeded(text, reason="DEADLINE_PASSED", position=last.position if last else None)
    error.__cause__ = last
    return error
