"""How much of the loop's time ticks take: where it is nearly all, nothing else gets its turn by itself."""

from __future__ import annotations

WINDOW_SECONDS = 0.05  # of ticks and rest together, that one measurement takes
HIGH = 0.25  # without a pause between calls, taking them in is the rest


class Strain:
    """The share of ticks in the time that was not spent on letting calls in."""

    def __init__(self) -> None:
        self.share = 0.0
        self._worked = 0.0
        self._rested = 0.0

    @property
    def high(self) -> bool:
        return self.share > HIGH

    def worked(self, seconds: float) -> None:
        self._worked += seconds
        self._measure()

    def rested(self, seconds: float) -> None:
        self._rested += seconds
        self._measure()

    def _measure(self) -> None:
        total = self._worked + self._rested
        if total >= WINDOW_SECONDS:
            self.share = self._worked / total
            self._worked = self._rested = 0.0
