"""The endpoints that do not serve a session's version of its model."""

from __future__ import annotations

import asyncio

_SECONDS = 2.0


class NotServing:
    """Those that answered MODEL_CHANGED within the last two seconds.

    While servers are replaced or reloaded one after another, some serve a version that others do not.
    """

    __slots__ = ("_loop", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._until: dict[object, float] = {}

    def add(self, endpoint: object) -> None:
        now = self._loop.time()
        self._until = {other: until for other, until in self._until.items() if until > now}
        self._until[endpoint] = now + _SECONDS

    def __contains__(self, endpoint: object) -> bool:
        until = self._until.get(endpoint)
        return until is not None and until > self._loop.time()

    def __len__(self) -> int:
        return sum(endpoint in self for endpoint in self._until)
