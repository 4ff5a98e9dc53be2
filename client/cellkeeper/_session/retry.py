"""Which errors are worth a retry, the pause before it, and what is raised when the time for retries is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ..errors import CellkeeperError, CommitConflict, DeadlineExceeded, QueueFull, QuotaExceeded, StepGap, Unavailable
from ..types import Backoff


def worth_retrying(error: CellkeeperError) -> bool:
    """Returns True if another attempt may end differently. For calls that are safe to repeat."""
    if isinstance(error, QuotaExceeded):
        return error.retry_delay_ms > 0
    return isinstance(error, (Unavailable, QueueFull, CommitConflict, DeadlineExceeded))


class RetryPause:
    """The pause of one session before it sends again what was refused.

    It grows with each refusal, until a step succeeds. active: nothing is sent meanwhile.
    """

    __slots__ = ("_attempt", "_backoff", "_loop", "_timer", "active")

    def __init__(self, loop: asyncio.AbstractEventLoop, backoff: Backoff) -> None:
        self.active = False
        self._loop = loop
        self._backoff = backoff
        self._attempt = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, error: CellkeeperError, on_end: Callable[[], None]) -> None:
        """Begins a pause after this refusal, unless there is one. on_end: called when it is over."""
        if self.active:
            return
        if isinstance(error, StepGap) and self._attempt == 0:
            self._attempt = 1  # the first replay need not wait
            return
        seconds = self._backoff.wait_seconds(self._attempt, error.retry_delay_ms)
        self._attempt += 1
        self.active = True
        self._timer = self._loop.call_later(seconds, self._end, on_end)

    def succeeded(self) -> None:
        """Notes that a step succeeded: the next pause is short again."""
        self._attempt = 0

    def cancel(self) -> None:
        """Ends it for good; nobody is called."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, on_end: Callable[[], None]) -> None:
        self.active = False
        self._timer = None
        on_end()


class EndpointStatus(Protocol):
    """An endpoint, as error messages need it.

    last_error: why it does not answer; None while it does. refusal: why steps for it are held back; None while they are
    not.
    """

    target: str
    last_error: CellkeeperError | None

    @property
    def refusal(self) -> CellkeeperError | None: ...


def no_answer_from(
    endpoint: EndpointStatus | None,
    timeout: float,
    spent: float,
    last: CellkeeperError | None,
    why: str,
    sent: bool = True,
) -> DeadlineExceeded:
    """Returns the error for a request to `endpoint`, or to none yet, that was not answered in time; see out_of_time.

    sent: it is in flight, or will not be sent.
    """
    if endpoint is None:
        return out_of_time(timeout, spent, "the server", last, why)
    last = last or endpoint.last_error or (None if sent else endpoint.refusal)
    return out_of_time(timeout, spent, endpoint.target, last, why)


def out_of_time(
    timeout: float, spent: float, target: str, last: CellkeeperError | None, why: str = ""
) -> DeadlineExceeded:
    """Returns the error of a call whose deadline passed.

    timeout: seconds that the caller allowed. spent: seconds that passed. target: who should have answered. why, last:
    what was in the way.
    """
    allowed = f"{timeout:.3g}" if timeout < 1000 else f"{timeout:.0f}"  # a part of a call has what is left
    text = f"no answer from {target} within {allowed} s"
    if abs(spent - timeout) > max(0.1, timeout / 20):
        text = f"no answer from {target} in {spent:.3g} s (timeout: {allowed} s)"
    if why:
        text += f"; {why}"
    if last is not None:
        text += f"; last: {last.message}"
    error = DeadlineExceeded(text, reason="DEADLINE_PASSED", position=last.position if last else None)
    error.__cause__ = last
    return error
