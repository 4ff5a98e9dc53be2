"""The answer that a thread waits for, while an event loop in another thread receives it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import CellkeeperError

Result = TypeVar("Result")
Work = TypeVar("Work")


class BlockingAnswer(Generic[Result, Work]):
    """The answer to one piece of work (a StepCall, a task): set once, in the event loop's thread, and waited for once.

    A lock is all that it needs: a concurrent.futures.Future has a condition beside, and is chained to a second future.
    """

    __slots__ = ("_done", "_error", "_lock", "_result", "told", "work")

    def __init__(self) -> None:
        self.told = False  # the work's own error is being raised
        self.work: Work | None = None
        self._done = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def start(self, submit: Callable[[], Work]) -> None:
        """In the event loop's thread: submits the work."""
        try:
            self.work = submit()
        except CellkeeperError as error:
            self.set_exception(error)

    def give_up(self, tell: Callable[[Work], object]) -> None:
        """In the event loop's thread: the caller has stopped waiting."""
        if self.work is not None:
            tell(self.work)

    def wait(self) -> Result:
        """Blocks until the answer is there. Raises what the work raised."""
        self._lock.acquire()
        if self._error is not None:
            self.told = True
            raise self._error
        return self._result  # type: ignore[return-value]  # None where that is the result

    def done(self) -> bool:
        return self._done

    def set_result(self, result: Result, /) -> None:
        self._result = result
        self._done = True
        self._lock.release()

    def set_exception(self, exception: BaseException, /) -> None:
        self._error = exception
        self._done = True
        self._lock.release()

    def exception(self) -> BaseException | None:
        return self._error
