"""What the parts of the core share: the sessions, what to do next, and how requests enter and leave."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import Header, SessionKey
from cellkeeper_service.errors import Reason, Rejection, internal_error

from .admission import AdmissionControl
from .lifecycle import NewGeneration
from .limits import MAX_CALL_ITEMS, Clock, Limits
from .models import Models, Version
from .requests import COMMITTING, DONE, WAITING, Request, Step, Write
from .session import CachedState, SessionState
from .state_cache import StateCache


@dataclass(eq=False)
class Context:
    """Makes no callbacks: notes what has happened, and the core goes on from there.

    ready: sessions whose first request may advance. queued: sessions with requests that wait.
    to_load, to_load_alone: sessions whose record must be read; those of the second one at a time. alone_next: the
        second has its turn.
    to_commit: sessions with something to commit and nothing in flight.
    finished: requests that have their result but have not been handed to the driver.
    """

    models: Mapping[str, Models]
    limits: Limits
    clock: Clock
    meter: Meter
    mint: Callable[[], bytes]
    owe: Callable[[str, int], None]
    admission: AdmissionControl = field(init=False)
    sessions: dict[SessionKey, SessionState] = field(default_factory=dict, init=False)
    caches: dict[Version, StateCache] = field(default_factory=dict, init=False)
    ready: dict[SessionState, None] = field(default_factory=dict, init=False)
    queued: dict[SessionState, None] = field(default_factory=dict, init=False)
    to_load: list[SessionState] = field(default_factory=list, init=False)
    to_load_alone: deque[SessionState] = field(default_factory=deque, init=False)
    alone_next: bool = field(default=False, init=False)
    to_commit: dict[SessionState, None] = field(default_factory=dict, init=False)
    finished: list[Request] = field(default_factory=list, init=False)
    now: float = field(default=0.0, init=False)  # monotonic time of the event

    def __post_init__(self) -> None:
        self.admission = AdmissionControl(self.models, self.limits)

    def begin_event(self) -> None:
        """Sets the time at which everything that this event does happens."""
        self.now = self.clock.monotonic()

    def cache_of(self, version: Version) -> StateCache:
        cache = self.caches.get(version)
        if cache is None:
            most = self.limits.log_steps(version.spec.step_bytes)
            cache = self.caches[version] = StateCache(version, most)
        return cache

    def new_generation(self) -> NewGeneration:
        return NewGeneration(self.mint(), self.clock.wall_ms(), self.limits.default_ttl_ms)

    # requests

    def admit(self, request: Request) -> SessionState | None:
        """Counts a new request and returns its session; None: it was not admitted, and is finished."""
        request.arrived = self.now
        session = self.sessions.get(request.key)
        if session is None:
            session = SessionState(request.key)
        refused = self.admission.enter(request, len(session.queue), self.now)
        if refused is not None:
            request.status, request.result = DONE, refused
            self.finished.append(request)
            return None
        self.sessions[request.key] = session
        return session

    def enqueue(self, session: SessionState, request: Request) -> None:
        session.queue.append(request)
        self.ready[session] = None

    def finish(self, request: Request, result: Any) -> None:
        """Gives the request its one result."""
        self.admission.leave(request, result, self.now)
        request.status, request.result = DONE, result
        self.finished.append(request)

    def goes_on_at(self, request: Request, key: SessionKey) -> None:
        """Moves the request to the end of another session's queue, as if it arrived now."""
        self.admission.release(request)
        request.key, request.status = key, WAITING
        session = self.admit(request)
        if session is not None:
            self.enqueue(session, request)

    def requeue(self, session: SessionState, requests: list[Request]) -> None:
        """Puts requests back at the front of the queue, in their order, to be decided again."""
        for request in requests:
            request.status = WAITING
        session.queue.extendleft(reversed(requests))

    def dead(self, request: Request) -> Rejection | None:
        """Returns why nobody waits for this request any more; None: somebody does."""
        if request.gone:
            return Rejection(Reason.CALLER_GONE, "the caller went away before the request started")
        if self.now >= request.deadline:
            return Rejection(Reason.DEADLINE_PASSED, "the deadline passed before the request was committed")
        return None

    def end_dead_requests(self) -> None:
        """Finishes waiting requests whose deadline has passed or whose caller is gone."""
        for session in list(self.queued):
            dead = {request: why for request in session.queue if (why := self.dead(request))}
            if dead:
                session.queue = deque(request for request in session.queue if request not in dead)
                for request, why in dead.items():
                    self.finish(request, why)
                self.ready[session] = None

    def commit_soon(self, session: SessionState, request: Request, write: Write) -> None:
        request.status, request.write = COMMITTING, write
        session.pending.append(request)
        if session.in_flight is None:
            self.to_commit[session] = None

    # sessions

    def next_loads(self) -> list[SessionState]:
        """Returns the sessions whose records the next call reads: many, or one that is read alone; in turn if both
        wait."""
        if self.to_load_alone and (self.alone_next or not self.to_load):
            wanted = [self.to_load_alone.popleft()]
        else:
            wanted, self.to_load = self.to_load[:MAX_CALL_ITEMS], self.to_load[MAX_CALL_ITEMS:]
        self.alone_next = not self.alone_next
        sessions = []
        for session in wanted:
            if session.queue:
                session.load_number = self.admission.arrivals
                sessions.append(session)
            else:  # nobody waits for its record any more
                session.loading = False
                self.settle(session)
        return sessions

    def settle(self, session: SessionState) -> None:
        """Files a session for which nothing more can be started: it waits, stays cached, or is forgotten."""
        if session.queue:
            self.queued[session] = None
            return
        self.queued.pop(session, None)
        if not session.idle:
            return
        session.reading = None  # valid for no later request, and may be large
        empty = session.cached is None and not session.waits_for_slot
        if empty and self.sessions.get(session.key) is session:  # a later one may have its key
            del self.sessions[session.key]

    def drop(self, session: SessionState) -> None:
        """Drops the session's cached state; what is being computed on it does not count."""
        if session.cached is not None:
            self.cache_of(session.cached.version).drop(session.cached)

    def unwind(self, session: SessionState) -> list[Request]:
        """Drops the cached state, and returns the chunks computed or being computed on it, in their order."""
        requests, session.pending = session.pending, []
        if isinstance(work := session.computing, Step) and not work.peek:
            requests.append(work)
        self.drop(session)
        return requests

    def fail(self, session: SessionState, requests: Iterable[Request], why: Rejection) -> None:
        """Fails these requests. What was computed after them is decided again, on the store's record."""
        failed = dict.fromkeys(request for request in requests if request.status is not DONE)
        session.queue = deque(request for request in session.queue if request not in failed)
        self.requeue(session, [request for request in self.unwind(session) if request not in failed])
        session.reading = None
        for request in failed:
            self.finish(request, why)
        self.ready[session] = None

    def broken(self, session: SessionState, requests: Iterable[Request]) -> None:
        """Fails these requests after an exception in code that worked for them."""
        self.fail(session, requests, internal_error())

    def place(self, session: SessionState, version: Version, header: Header, state: bytes) -> CachedState | None:
        """Caches the session's state, if necessary in place of an idle session's. Returns None if no slot is free, or
        if the version is retired: a cache that is made for it now would never be let go."""
        if version.retired:
            return None
        cache = self.cache_of(version)
        cached = cache.put(session, header, state)
        if cached is None and (other := cache.evictable()) is not None:
            self.drop(other.session)
            self.settle(other.session)
            self.meter.evicted(session.key.model, "capacity")
            cached = cache.put(session, header, state)
        return cached

    def place_or_wait(
        self, session: SessionState, version: Version, header: Header, state: bytes
    ) -> CachedState | None:
        """Like `place`. None: the session waits for a slot, and its first request is decided again when one is free."""
        cached = self.place(session, version, header, state)
        if cached is None:
            session.waits_for_slot = True
            self.cache_of(version).waiting.append(session)
        return cached

    def let_retired_go(self) -> None:
        """Drops the idle cached states of retiring versions, and each such version once nothing uses it."""
        for models in self.models.values():
            for version in list(models.retiring):
                cache = self.cache_of(version)
                for session in cache.sessions:
                    if session.idle:
                        self.drop(session)
                        self.settle(session)
                        self.meter.evicted(session.key.model, "retired")
                if cache.at_rest:
                    models.retiring.remove(version)
                    del self.caches[version]
