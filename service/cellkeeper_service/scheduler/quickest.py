"""The shortest time in which a call was answered of late: one that has less left would be served for nothing."""

from __future__ import annotations

WINDOW_SECONDS = 0.25
NONE = float("inf")


class Quickest:
    """Over this window and the last one. Where no call was answered nothing is known, and every call is tried: what was
    slow finds out so when it no longer is."""

    def __init__(self) -> None:
        self._now = NONE
        self._before = NONE
        self._since = 0.0

    def took(self, seconds: float, now: float) -> None:
        """A call was answered, `seconds` after it came."""
        self._turn(now)
        self._now = min(self._now, seconds)

    def seconds(self, now: float) -> float:
        self._turn(now)
        found = min(self._now, self._before)
        return 0.0 if found == NONE else found

    def _turn(self, now: float) -> None:
        elapsed = now - self._since
        if elapsed >= WINDOW_SECONDS:
            self._before = self._now if elapsed < 2 * WINDOW_SECONDS else NONE
            self._now, self._since = NONE, now
