"""Which endpoint serves which session, by rendezvous hashing.

A session keeps its endpoint, and the sessions of a lost endpoint spread over the others. Any endpoint may serve any
session; keeping to one is only faster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import blake2b

from .._session.session_sender import Dispatch, SessionSender
from ..types import Counters, Model
from .endpoint import Endpoint
from .frame_codec import frame_bytes
from .settings import ClientSettings


def rendezvous(session: str, targets: Sequence[str]) -> list[str]:
    """Returns the targets in the session's order of preference."""

    def weight(target: str) -> bytes:
        return blake2b(session.encode(), digest_size=8, key=blake2b(target.encode(), digest_size=32).digest()).digest()

    return sorted(targets, key=weight, reverse=True)


class Endpoints:
    """All endpoints of one client."""

    def __init__(self, settings: ClientSettings, counters: Counters) -> None:
        self._loop = asyncio.get_running_loop()
        self._endpoints = {target: Endpoint(target, settings, counters, self._on_up) for target in settings.targets}
        self._only = next(iter(self._endpoints.values())) if len(self._endpoints) == 1 else None

    @property
    def names(self) -> str:
        """All targets, for messages."""
        return ", ".join(self._endpoints)

    def order(self, session: str) -> list[Endpoint]:
        """Returns the healthy endpoints in the session's order, then the others."""
        return sorted(self.ranked(session), key=self._unhealthy)

    def first(self, session: str) -> Endpoint:
        """Returns the first of `order`."""
        return self._only or self.order(session)[0]

    def ranked(self, session: str) -> list[Endpoint]:
        """Returns all endpoints in the session's order."""
        return [self._endpoints[target] for target in rendezvous(session, list(self._endpoints))]

    @property
    def all(self) -> list[Endpoint]:
        return list(self._endpoints.values())

    def healthy(self) -> tuple[bool, ...]:
        """Returns, for each of `all`, whether it is up, as far as is known, and not draining."""
        return tuple(not self._unhealthy(endpoint) for endpoint in self._endpoints.values())

    @property
    def dispatch(self) -> Dispatch:
        """Queues a sender at its best endpoint.

        A sender changes its endpoint only when none of its chunks is in flight, which keeps them in order; until then
        it sends nothing.
        """
        return self._dispatch if self._only is None else self._only.enqueue

    def _dispatch(self, sender: SessionSender) -> None:
        best = self._best(sender)
        if not sender.history.in_flight or sender.endpoint is best:
            best.enqueue(sender)

    def _best(self, sender: SessionSender) -> Endpoint:
        ranked: list[Endpoint] = sender.ranked or self.ranked(sender.session)
        sender.ranked = ranked
        good = [endpoint for endpoint in ranked if not self._unhealthy(endpoint)]
        return next((endpoint for endpoint in good if endpoint not in sender.not_serving), (good or ranked)[0])

    async def close(self) -> None:
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints.values()))

    def abandon(self) -> None:
        """Ends the connections without waiting."""
        for endpoint in self._endpoints.values():
            endpoint.abandon()

    def limit_frames(self, model: Model) -> None:
        """Limits frames to what the model's server takes."""
        for endpoint in self._endpoints.values():
            queue = endpoint.send_queue
            queue.limit(model.max_frame_items or queue.max_items, frame_bytes(model))

    def _unhealthy(self, endpoint: Endpoint) -> bool:
        return endpoint.down or endpoint.avoid_until > self._loop.time()

    def _on_up(self) -> None:
        """Lets the sessions that wait for an endpoint that is still down use the one that is back."""
        for endpoint in self._endpoints.values():
            if endpoint.down:
                endpoint.reroute()
