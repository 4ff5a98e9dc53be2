"""How signals end a stream: with its last rows answered and printed, because the session has consumed them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(Exception):
    """A signal has ended a stream, and its last rows are printed. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by signal {number}")
        self.number = number


def end_by(number: int) -> int:
    """Ends the process as if it had no handler for the signal, so that a shell's loop ends, too. Returns the status
    that a shell would show if no signal ends the process, as with the first one of a container, and on Windows."""
    if os.name == "posix":
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return 128 + number


class _Ended(BaseException):
    """Leaves the reading of a row that may never come."""


class Ending:
    """While it is entered, the first signal ends the rows instead of the program; a second one ends the program.

    Signals that the program was started to ignore (nohup) stay ignored. Use it in the main thread. came: the signal
    that came; 0: none.
    """

    def __init__(self) -> None:
        self.came = 0
        self._reading = False
        self._before: dict[int, Any] = {}

    def rows(self, rows: Iterator[T]) -> Iterator[T]:
        """Yields the rows until a signal comes, even if that is while the next one is awaited."""
        while True:
            try:
                try:
                    self._reading = True
                    if self.came:
                        return
                    row = next(rows, None)
                finally:
                    self._reading = False
            except _Ended:
                return
            if row is None:
                return
            yield row

    def __enter__(self) -> Ending:
        for name in NAMES:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        self.came = number
        if self._reading:
            self._reading = False
            raise _Ended

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
