"""Attempts at something that pays only where it succeeds."""

from __future__ import annotations

FAILURES = 3
SKIPS = 16


class Attempts:
    """After FAILURES in a row, the next SKIPS attempts are left out; then it is tried again."""

    def __init__(self) -> None:
        self._failures = 0

    def skip(self) -> bool:
        """Returns whether to leave the next attempt out. One that is made is reported to `ended`."""
        if self._failures < FAILURES:
            return False
        self._failures = (self._failures + 1) % (FAILURES + SKIPS)
        return True

    def ended(self, success: bool) -> None:
        self._failures = 0 if success else self._failures + 1
