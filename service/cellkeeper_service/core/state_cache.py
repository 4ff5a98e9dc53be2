"""States of sessions beside the engine: which ones, in which rows of its arena, and which to give up first."""

from __future__ import annotations

from collections import OrderedDict, deque

from cellkeeper_service.domain.record import Header

from .models import Version
from .session import CachedState, SessionState

LOOK_AT = 256
"""So many of the least recently used sessions are looked at for one to evict."""


class StateCache:
    """Those of one version. A slot is two rows of the arena: one holds the state, the other takes the next, so that
    the state before a chunk outlives it.

    waiting: sessions that wait for a slot. ready: states on which something is to be computed, oldest first.
    """

    def __init__(self, version: Version, max_log_steps: int) -> None:
        """max_log_steps: time steps in the log of a record of this version, at the most."""
        self.version = version
        self.max_log_steps = max_log_steps
        self.waiting: deque[SessionState] = deque()
        self.ready: deque[CachedState] = deque()
        self.batches = 0
        self._free = list(range(version.slot_count - 1, -1, -1))
        self._states: OrderedDict[SessionState, CachedState] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        """How many slots are taken."""
        return self.version.slot_count - len(self._free)

    @property
    def sessions(self) -> list[SessionState]:
        """Least recently used first."""
        return list(self._states)

    @property
    def at_rest(self) -> bool:
        """Nothing of any session is left here."""
        return not (len(self) or self.waiting or self.ready)

    def put(self, session: SessionState, header: Header, state: bytes) -> CachedState | None:
        """The session's state at a record with this `header`. None: no slot is free."""
        if self.version.retired or not self._free:
            return None
        at, slot = header.position, self._free.pop()
        log_start, version = header.checkpoint_step, self.version
        cached = CachedState(
            session, self.ready, version, slot, header, True, state, at, at.step, log_start, self.max_log_steps
        )
        session.cached = self._states[session] = cached
        return cached

    def drop(self, cached: CachedState) -> None:
        """Its session is not cached from here on."""
        cached.session.cached = None
        cached.dropped = True
        self._states.pop(cached.session, None)
        if not cached.in_batch:
            self._free.append(cached.slot)

    def left_batch(self, cached: CachedState) -> bool:
        """It is in no batch any more. False: it was dropped meanwhile, and nothing computed of it counts."""
        cached.in_batch = False
        if cached.dropped:
            self._free.append(cached.slot)
        return not cached.dropped

    def used(self, cached: CachedState) -> None:
        if not cached.dropped:
            self._states.move_to_end(cached.session)

    def evictable(self) -> CachedState | None:
        """The least recently used one whose session has nothing to do."""
        for (session, cached), _ in zip(self._states.items(), range(LOOK_AT), strict=False):
            if session.idle:
                return cached
        return None
