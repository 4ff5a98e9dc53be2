"""Which callers are expected back soon, with their next request. See docs/adr/454-returning-callers.md."""

from __future__ import annotations

from collections.abc import Iterable

from cellkeeper_service.domain.record import SessionKey

from .requests import Request

RETURN_SECONDS = 0.02
"""A caller that stays away for longer after its reply is no longer expected."""

WEIGHT = 0.05
"""How much the latest caller counts in the share of callers that return."""

MOST = 0.5
"""Callers are expected back where more than this share of the latest ones returned in time."""


class Callers:
    """The callers of single requests: who waits for a reply, and who has one and will probably send the next request
    soon. Most callers run a closed loop: they send a request as soon as they have the reply to the one before. A caller
    is known by the session that it asks for. Times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._waiting: set[SessionKey] = set()
        self._away: dict[SessionKey, float] = {}  # when each got its reply, in that order
        self._returned = 0.0  # the share of callers that return

    @property
    def away(self) -> int:
        """How many got a reply lately and have not returned."""
        return len(self._away)

    @property
    def return_soon(self) -> bool:
        """Whether most of the latest callers returned in time."""
        return self._returned > MOST

    def came(self, key: SessionKey) -> None:
        """A request for this session was submitted by itself."""
        self._waiting.add(key)
        if self._away.pop(key, None) is not None:
            self._returned += WEIGHT * (1.0 - self._returned)

    def answered(self, requests: Iterable[Request], now: float) -> None:
        """These requests have their results. Those that came in frames are ignored."""
        waiting, away = self._waiting, self._away
        if waiting:
            for request in requests:
                if (key := request.key) in waiting:
                    waiting.remove(key)
                    away[key] = now
        self.forget(now)

    def forget(self, now: float) -> None:
        """Stops expecting the callers whose time to return has passed."""
        away, too_long_ago = self._away, now - RETURN_SECONDS
        while away:
            key = next(iter(away))
            if away[key] > too_long_ago:
                return
            del away[key]
            self._returned -= WEIGHT * self._returned
