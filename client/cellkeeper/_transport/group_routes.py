"""Chooses each member's endpoint by rendezvous hashing, as for sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from .._session.group_call import GroupPart
from .._session.group_history import Members, Rows
from .._session.group_sender import GroupSender
from .._session.retry import EndpointStatus
from .._session.session_sender import SessionSender
from .endpoint import Endpoint
from .endpoints import Endpoints
from .frame_codec import most_items
from .group_frame import GroupFrame

Split = list[tuple[Endpoint, "Rows | None", Members]]


class GroupRoutes:
    """Implements Routes."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._all = endpoints.all
        self._ranks: dict[str, NDArray[np.intp]] = {}  # by id: indices into `all`, in order of preference
        self._latest: tuple[Members, tuple[object, ...], Split] | None = None

    def split(self, members: Members, input_bytes: int) -> Sequence[tuple[EndpointStatus, Rows | None, Members]]:
        """Splits the members into frames. Returns the previous split if nothing has changed since."""
        healthy = self._endpoints.healthy() if len(self._all) > 1 else (True,)
        limits = tuple((endpoint.send_queue.max_items, endpoint.send_queue.max_bytes) for endpoint in self._all)
        key = (healthy, limits, input_bytes)
        if self._latest is not None and self._latest[0] is members and self._latest[1] == key:
            return self._latest[2]
        at = np.zeros(len(members), np.intp) if len(self._all) == 1 else self._preferred(members, healthy)
        split: Split = []
        for place, endpoint in enumerate(self._all):
            items = np.flatnonzero(at == place)
            most = most_items(*limits[place], input_bytes, members.names)
            for first in range(0, len(items), most):
                some = items[first : first + most]
                whole = len(some) == len(members)
                split.append((endpoint, None if whole else some, members if whole else members.take(some)))
        self._latest = (members, key, split)
        return split

    def send(self, part: GroupPart, sender: GroupSender) -> None:
        cast(Endpoint, part.endpoint).enqueue(GroupFrame(part, sender))

    def adopt(self, sender: SessionSender, endpoint: EndpointStatus | None) -> None:
        if len(self._all) > 1:
            sender.ranked = self._endpoints.ranked(sender.session)
        sender.endpoint = endpoint

    def forget(self, name: str) -> None:
        self._ranks.pop(name, None)

    def _preferred(self, members: Members, healthy: Sequence[bool]) -> Rows:
        """Returns the index of each member's first healthy endpoint, or of its first one if none is healthy."""
        ranks = np.array([self._ranks.get(name) if name in self._ranks else self._rank(name) for name in members.names])
        good = np.array(healthy)[ranks]
        first: Rows = np.take_along_axis(ranks, good.argmax(axis=1)[:, None], axis=1)[:, 0]
        return first

    def _rank(self, name: str) -> NDArray[np.intp]:
        places = {endpoint: place for place, endpoint in enumerate(self._all)}
        ranks = self._ranks[name] = np.array([places[endpoint] for endpoint in self._endpoints.ranked(name)], np.intp)
        return ranks
