"""A caller's step, from its submission to its answer."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Protocol

from ..errors import CellkeeperError, Closed, DeadlineExceeded, HistoryError, ModelError, StepGap, error_of_reason
from ..late_step import LateStep
from ..types import StepReply
from .chunk import Chunk
from .frame_format import FrameFormat


class Answer(Protocol):
    """Receives the reply or the error: an asyncio future, or an object that a thread waits on."""

    def done(self) -> bool: ...

    def set_result(self, result: StepReply, /) -> None: ...

    def set_exception(self, exception: CellkeeperError, /) -> None: ...

    def exception(self) -> BaseException | None: ...


@dataclass(slots=True, eq=False, repr=False)
class StepCall:
    """inputs: raw bytes. single: given without a time axis. timeout: seconds. deadline: on the event loop's clock.

    chunk: set while the step is in the history and unanswered. reply: its answer. late: set once its caller stopped
    waiting after it was sent.
    """

    inputs: bytes
    single: bool
    frame_format: FrameFormat
    timeout: float
    deadline: float
    answer: Answer
    chunk: Chunk | None = None
    last_error: CellkeeperError | None = None
    reply: StepReply | None = None
    late: LateStep | None = None

    @property
    def steps(self) -> int:
        """How many time steps it has."""
        return len(self.inputs) // self.frame_format.layout.step_bytes

    def fail(self, error: CellkeeperError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # marks it as retrieved: otherwise asyncio would warn if the caller has gone


def error_of_later_steps(error: CellkeeperError) -> CellkeeperError:
    """Returns the error for the steps that build on one that failed with `error`."""
    text = f"the step before it failed: {error.message}"
    if isinstance(error, (HistoryError, ModelError, DeadlineExceeded, Closed)):
        other = type(error)(text, reason=error.reason, position=error.position)
    else:
        other = StepGap(f"not applied, {text}", reason="STEP_GAP", position=error.position)
    other.__cause__ = error
    return other


def with_late_step(error: CellkeeperError, late: LateStep) -> CellkeeperError:
    """Returns a copy of the error for the caller of that one step; other callers may hold the same object."""
    own = copy(error)
    own.__cause__ = error.__cause__
    own.late_step = late
    return own


_FOUND_HERE = {
    "GENERATION_CHANGED": "the server has another generation of this session; open it again to continue from that one",
    "HISTORY_CHANGED": "the server's record of this session has inputs that this client did not send",
    "HISTORY_LOST": (
        "the server lost more steps of this session than this client keeps inputs for; "
        "open it again and send the missing steps"
    ),
}


def translated(reason: str, error: CellkeeperError) -> CellkeeperError:
    """Returns the server's error, or the error that this client concluded from it."""
    if reason == error.reason or reason not in _FOUND_HERE:
        return error
    found = error_of_reason(reason, _FOUND_HERE[reason], error.position)
    found.__cause__ = error
    return found
