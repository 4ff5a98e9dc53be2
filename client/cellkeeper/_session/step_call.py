"""Someone who waits for the answer to one chunk."""

from __future__ import annotations

from copy import copy
from typing import Protocol

from ..errors import CellkeeperError, Closed, DeadlineExceeded, HistoryError, ModelError, StepGap, error_of_reason
from ..late_step import LateStep
from ..types import StepReply
from .chunk import Chunk
from .frame_format import Kind


class Answer(Protocol):
    """What an answer comes to: a future of asyncio's, or something that a thread waits on."""

    def done(self) -> bool: ...

    def set_result(self, result: StepReply, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...

    def exception(self) -> BaseException | None: ...


class StepCall:
    """inputs: raw bytes. single: given without a time axis. timeout: seconds. deadline: on the event loop's clock.

    chunk: once it has its place in the history, until it is answered. reply: what it was answered with. late: once
    nobody waits for it, though it was sent.
    """

    __slots__ = ("answer", "chunk", "deadline", "inputs", "kind", "last_error", "late", "reply", "single", "timeout")

    def __init__(
        self,
        inputs: bytes,
        single: bool,
        kind: Kind,
        timeout: float,
        deadline: float,
        answer: Answer,
    ) -> None:
        self.inputs = inputs
        self.single = single
        self.kind = kind
        self.timeout = timeout
        self.deadline = deadline
        self.answer = answer
        self.chunk: Chunk | None = None
        self.last_error: CellkeeperError | None = None
        self.reply: StepReply | None = None
        self.late: LateStep | None = None

    def fail(self, error: CellkeeperError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # a caller that went away is no reason for a warning


def behind(error: CellkeeperError) -> CellkeeperError:
    """What the steps after one that failed with `error` fail with."""
    text = f"the step before it failed: {error.message}"
    if isinstance(error, (HistoryError, ModelError, DeadlineExceeded, Closed)):
        other = type(error)(text, reason=error.reason, position=error.position)
    else:
        other = StepGap(f"not applied, {text}", reason="STEP_GAP", position=error.position)
    other.__cause__ = error
    return other


def with_late_step(error: CellkeeperError, late: LateStep) -> CellkeeperError:
    """The error for the caller of that one step; several callers may share what it is made from."""
    own = copy(error)
    own.__cause__ = error.__cause__
    own.late_step = late
    return own


_FOUND_HERE = {
    "GENERATION_CHANGED": "another life of the session stands at the server; open it anew to go on with that one",
    "HISTORY_CHANGED": "the server's record of this session has other inputs than those sent from here",
    "HISTORY_LOST": (
        "the server lost more steps of this session than the inputs kept here reach back; "
        "open it anew and send what is missing"
    ),
}


def translated(reason: str, error: CellkeeperError) -> CellkeeperError:
    """The server's error, or what this client made of it."""
    if reason == error.reason or reason not in _FOUND_HERE:
        return error
    found = error_of_reason(reason, _FOUND_HERE[reason], error.position)
    found.__cause__ = error
    return found
