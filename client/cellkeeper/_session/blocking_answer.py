"""An answer that one thread waits for while an event loop in another thread receives it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")
Work = TypeVar("Work")


class BlockingAnswer(Generic[Result, Work]):
    """The answer to one piece of work (a StepCall, a task): set once, in the event loop's thread, and awaited once.

    A lock is enough: a concurrent.futures.Future also has a condition, and would be chained to a second future.
    """

    __slots__ = ("_done", "_error", "_lock", "_on_result", "_result", "told", "work")

    def __init__(self, on_result: Callable[[Result], object] | None = None) -> None:
        """on_result: called with the result in the event loop's thread, where answers arrive in order."""
        self._on_result = on_result
        self.told = False  # True once `wait` has raised the work's own error
        self.work: Work | None = None
        self._done = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def start(self, submit: Callable[[], Work]) -> None:
        """Submits the work. Runs in the event loop's thread."""
        try:
            self.work = submit()
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller waits for it
            self.set_exception(error)

    @property
    def unread(self) -> Result | None:
        """The result, if there is one that the caller has not got. For the event loop's thread."""
        return self._result if self._done and self._error is None else None

    def give_up(self, tell: Callable[[Work], object]) -> None:
        """Tells the work that its caller has stopped waiting. Runs in the event loop's thread."""
        if self.work is not None:
            tell(self.work)

    def wait(self) -> Result:
        """Blocks until the answer arrives. Raises what the work raised."""
        self._lock.acquire()
        if self._error is not None:
            self.told = True
            raise self._error
        return self._result  # type: ignore[return-value]  # None where that is the result

    def done(self) -> bool:
        return self._done

    def set_result(self, result: Result, /) -> None:
        if self._on_result is not None:
            self._on_result(result)
        self._result = result
        self._done = True
        self._lock.release()

    def set_exception(self, exception: BaseException, /) -> None:
        self._error = exception
        self._done = True
        self._lock.release()

    def exception(self) -> BaseException | None:
        return self._error
