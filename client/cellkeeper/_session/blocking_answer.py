"""The answer that a thread waits for, while an event loop in another thread receives it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import CellkeeperError
from ..types import StepReply
from .step_call import StepCall


class BlockingAnswer:
    """The answer to one step: set once, in the event loop's thread, and waited for once."""

    __slots__ = ("_error", "_lock", "_reply", "call", "told")

    def __init__(self) -> None:
        self.told = False  # the step's own error is being raised
        self._lock = threading.Lock()
        self._lock.acquire()
        self._reply: StepReply | None = None
        self._error: BaseException | None = None
        self.call: StepCall | None = None

    def start(self, submit: Callable[[], StepCall]) -> None:
        """In the event loop's thread: submits the step."""
        try:
            self.call = submit()
        except CellkeeperError as error:
            self.set_exception(error)

    def give_up(self, tell: Callable[[StepCall], None]) -> None:
        """In the event loop's thread: the caller has stopped waiting."""
        if self.call is not None:
            tell(self.call)

    def wait(self) -> StepReply:
        """Blocks until the answer is there. Raises what the step raised."""
        self._lock.acquire()
        if self._reply is None:
            self.told = True
            raise self._error or RuntimeError("woken without an answer")
        return self._reply

    def done(self) -> bool:
        return self._reply is not None or self._error is not None

    def set_result(self, result: StepReply, /) -> None:
        self._reply = result
        self._lock.release()

    def set_exception(self, exception: BaseException, /) -> None:
        self._error = exception
        self._lock.release()

    def exception(self) -> BaseException | None:
        return self._error
