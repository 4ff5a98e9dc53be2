"""Shows the progress of a long command on stderr, if that is a terminal."""

from __future__ import annotations

import sys
import time

SHOWN_EVERY_SECONDS = 0.2


class Progress:
    """One line that is rewritten in place. what: the things that are counted, such as "rows"."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()
        self._count = 0
        self._started = self._next = time.monotonic()

    def at(self, count: int) -> None:
        """Shows that `count` are done."""
        self._count = count
        if self._shown and time.monotonic() >= self._next:
            self._show("")
            self._next = time.monotonic() + SHOWN_EVERY_SECONDS

    def end(self) -> None:
        """Shows the last count and ends the line."""
        if self._shown:
            self._show("\n")

    def _show(self, end: str) -> None:
        rate = self._count / max(1e-9, time.monotonic() - self._started)
        print(f"\r{self._count} {self._what}, {rate:.0f} a second ", end=end, file=sys.stderr, flush=True)
