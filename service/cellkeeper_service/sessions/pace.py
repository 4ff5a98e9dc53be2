"""How fast requests are being finished, and so how long a new one would wait. See docs/adr/009-admission.md."""

from __future__ import annotations

WINDOW_SECONDS = 0.25  # of work without a pause that one measurement takes
STILL_SECONDS = 1.0  # of work in which nothing was finished are a measurement too
MEMORY = 0.5  # of the last measurements
FREE_REQUESTS = 256
"""So many may always wait: about what one tick takes, and enough to find out anew how fast the server is."""

ROOM = 2.0
"""A request is taken if it would be finished in 1/ROOM of the time it has: the rate is of the recent past, and the
replies have a way to go."""


class Pace:
    """Counts finished requests while there are unanswered ones. Time without any says nothing and is left out.

    Requests are finished many at a time, at the end of a commit. So a measurement is taken when the next one comes,
    never in the middle of those, and for a while not before any were finished.
    """

    def __init__(self) -> None:
        self.requests_per_second = 0.0  # 0: not measured yet
        self._since = 0.0
        self._finished = 0
        self._last = 0.0

    def entered(self, now: float, unanswered: int) -> None:
        """unanswered: with the one that came."""
        if unanswered == 1:
            self._measure(self._last)
            self._since, self._finished = now, 0
        else:
            self._measure(now)

    def finished(self, now: float, count: int = 1) -> None:
        """Requests were done, not dropped: dropping is no measure of what can be done."""
        self._finished += count
        self._last = now

    def too_late(self, unanswered: int, now: float, deadline: float) -> bool:
        """Whether a request behind that many others would probably miss its deadline."""
        if unanswered <= FREE_REQUESTS:
            return False  # and nothing is measured: the time until now may have been one without work
        self._measure(now)
        return self.requests_per_second > 0 and ROOM * unanswered > self.requests_per_second * (deadline - now)

    def _measure(self, now: float) -> None:
        elapsed = now - self._since
        if elapsed < (WINDOW_SECONDS if self._finished else STILL_SECONDS):
            return
        measured = self._finished / elapsed
        before = self.requests_per_second or measured
        self.requests_per_second = MEMORY * before + (1 - MEMORY) * measured
        self._since, self._finished = now, 0
