"""The state cache: which sessions' states are in which rows of the engine's arena, and which to evict first."""

from __future__ import annotations

from collections import OrderedDict, deque

from cellkeeper_service.domain.record import Header

from .models import Version
from .session import CachedState, SessionState

LOOK_AT = 256
"""How many of the least recently used sessions an eviction looks at."""


class StateCache:
    """The cached states of one version. A slot is two rows of the arena: one holds the state, the other takes the next
    one, so that the state before a chunk stays available.

    waiting: sessions that wait for a slot. ready: states with work, oldest first.
    """

    def __init__(self, version: Version, max_log_steps: int) -> None:
        """max_log_steps: the most time steps in the log of a record of this version."""
        self.version = version
        self.max_log_steps = max_log_steps
        self.waiting: deque[SessionState] = deque()
        self.ready: deque[CachedState] = deque()
        self.batches = 0
        self._free = list(range(version.slot_count - 1, -1, -1))
        self._states: OrderedDict[SessionState, CachedState] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        """The number of slots in use."""
        return self.version.slot_count - len(self._free)

    @property
    def sessions(self) -> list[SessionState]:
        """The cached sessions, least recently used first."""
        return list(self._states)

    @property
    def at_rest(self) -> bool:
        """Whether nothing of any session is left here."""
        return not (len(self) or self.waiting or self.ready)

    def put(self, session: SessionState, header: Header, state: bytes) -> CachedState | None:
        """Caches the session's state at a record with this header. Returns None if no slot is free."""
        if not self._free:
            return None
        at, slot = header.position, self._free.pop()
        log_start, version = header.checkpoint_step, self.version
        cached = CachedState(
            session, self.ready, version, slot, header, True, state, at, at.step, log_start, self.max_log_steps
        )
        session.cached = self._states[session] = cached
        return cached

    def drop(self, cached: CachedState) -> None:
        """Drops the state; its slot is free once no batch uses it."""
        cached.session.cached = None
        cached.dropped = True
        self._states.pop(cached.session, None)
        if not cached.in_batch:
            self._free.append(cached.slot)

    def left_batch(self, cached: CachedState) -> bool:
        """Its batch has ended. Returns False if it was dropped meanwhile, so that the results do not count."""
        cached.in_batch = False
        if cached.dropped:
            self._free.append(cached.slot)
        return not cached.dropped

    def used(self, cached: CachedState) -> None:
        """cached: not dropped."""
        self._states.move_to_end(cached.session)

    def evictable(self) -> CachedState | None:
        """Returns the least recently used state of an idle session."""
        for (session, cached), _ in zip(self._states.items(), range(LOOK_AT), strict=False):
            if session.idle:
                return cached
        return None
