"""How many items a client has in flight at one endpoint, while the server refuses some because its queue is full."""

from __future__ import annotations

from ..errors import CellkeeperError

UNLIMITED = float("inf")
LEAST_ITEMS = 8

CUT = 0.85
"""A refusal reduces the window to this share."""

GROWTH = 1 / 16
"""The window grows by this share of the items that are applied."""

HEADROOM = 2.0
"""A step is worth sending if it has this many times as long as an answer takes. The server admits steps by the same
rule."""

WEIGHT = 0.1
"""Of the latest answer, in the mean time of an answer."""


class ItemWindow:
    """Holds back items that the server would refuse: a refusal costs both sides nearly as much as an answer.

    There is no limit before the first refusal, which sets it to a part of what the server took. Every refusal of items
    that were sent since reduces it again, and every answer widens it. Times are seconds of the event loop's clock.
    """

    def __init__(self) -> None:
        self._refusal: CellkeeperError | None = None
        self._limit = UNLIMITED
        self._in_flight = 0
        self._answer_seconds = 0.0
        self._reduced_at = 0.0

    @property
    def room(self) -> float:
        """How many items may be sent now; infinity without a limit."""
        return max(0.0, self._limit - self._in_flight)

    @property
    def refusal(self) -> CellkeeperError | None:
        """The latest refusal while it leaves no room, otherwise None."""
        return None if self.room >= 1 else self._refusal

    @property
    def least_seconds(self) -> float:
        """The time that a step must have left to be worth sending."""
        return HEADROOM * self._answer_seconds

    def sent(self, items: int) -> None:
        """Counts items that were sent."""
        self._in_flight += items

    def applied(self, items: int, seconds: float) -> None:
        """Counts items that were applied, this long after they were sent."""
        self._in_flight -= items
        self._limit += GROWTH * items
        self._answer_seconds += WEIGHT * (seconds - self._answer_seconds)

    def ended(self, items: int) -> None:
        """Counts items that ended in any other way."""
        self._in_flight -= items

    def refused(self, items: int, error: CellkeeperError, sent_at: float, now: float) -> None:
        """Counts items that were refused because the server's queue was full. sent_at: when they were sent."""
        self._in_flight -= items
        self._refusal = error
        if sent_at >= self._reduced_at:  # not for items that were sent before the window was reduced
            before = self._in_flight if self._limit == UNLIMITED else self._limit
            self._limit = max(LEAST_ITEMS, CUT * before)
            self._reduced_at = now
