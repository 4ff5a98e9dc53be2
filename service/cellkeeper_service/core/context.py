"""What the parts of the core share: the sessions, what is to be done next, and how a request enters and leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import Header, SessionKey
from cellkeeper_service.errors import Reason, Rejection, internal_error

from .admission import AdmissionControl
from .lifecycle import NewGeneration
from .limits import Clock, Limits
from .models import Models, Version
from .requests import COMMITTING, DONE, WAITING, Request, Step
from .session import CachedState, SessionState
from .state_cache import StateCache


class Context:
    """Nothing here calls anybody back: what has happened is written down, and the core goes on from it.

    ready: sessions whose first request may go on. queued: sessions with requests that nothing was started for.
    to_load, to_load_alone: sessions whose record is to be read; each of the second by itself. alone_next: it is the
        second's turn.
    to_commit: sessions with something to commit, and nothing in flight.
    finished: requests that have their result, which their callers have not been told.
    """

    def __init__(
        self,
        models: Mapping[str, Models],
        limits: Limits,
        clock: Clock,
        meter: Meter,
        mint: Callable[[], bytes],
        owe: Callable[[str, int], None],
    ) -> None:
        self.models = models
        self.limits = limits
        self.clock = clock
        self.meter = meter
        self.mint = mint
        self.owe = owe
        self.admission = AdmissionControl(models, limits)
        self.sessions: dict[SessionKey, SessionState] = {}
        self.caches: dict[Version, StateCache] = {}
        self.ready: dict[SessionState, None] = {}
        self.queued: dict[SessionState, None] = {}
        self.to_load: list[SessionState] = []
        self.to_load_alone: deque[SessionState] = deque()
        self.alone_next = False
        self.to_commit: dict[SessionState, None] = {}
        self.finished: list[Request] = []
        self.now = 0.0  # of the event, monotonic

    def begin_event(self) -> None:
        """Everything that one event does happens at one time."""
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
        """Counts a request that arrives, and gives its session. None: it is not taken, and has its result."""
        request.arrived = self.now
        session = self.sessions.get(request.key)
        if session is None:
            session = SessionState(request.key)
        refused = self.admission.enter(request, len(session.queue), self.now)
        if refused is not None:
            self.finish(request, refused)
            return None
        self.sessions[request.key] = session
        return session

    def enqueue(self, session: SessionState, request: Request) -> None:
        session.queue.append(request)
        self.ready[session] = None

    def finish(self, request: Request, result: Any) -> None:
        """The request has its one result."""
        self.admission.leave(request, result, self.now)
        request.status, request.result = DONE, result
        self.finished.append(request)

    def goes_on_as(self, request: Request, other: Request) -> None:
        """The request counts no more: it goes on as another, which may be in another session."""
        self.admission.release(request)
        request.status = DONE
        session = self.admit(other)
        if session is not None:
            self.enqueue(session, other)

    def requeue(self, session: SessionState, requests: Iterable[Request]) -> None:
        """Puts requests back to the session's front, in their order: they are decided again."""
        again = list(requests)
        for request in again:
            request.status = WAITING
        session.queue.extendleft(reversed(again))

    def dead(self, request: Request, now: float) -> Rejection | None:
        """Why nobody waits for this request any more, if so."""
        if request.gone:
            return Rejection(Reason.CALLER_GONE, "the caller went away before the request was begun")
        return late(request, now)

    def commit_soon(self, session: SessionState, request: Request, result: Any) -> None:
        """The request is done once the store has accepted what it writes."""
        request.status, request.result = COMMITTING, result
        session.pending.append(request)
        if session.in_flight is None:
            self.to_commit[session] = None

    # sessions

    def go_on(self, session: SessionState) -> None:
        """Something that the session waited for has happened."""
        if session.queue or session.cached is None:
            self.ready[session] = None

    def settle(self, session: SessionState) -> None:
        """Keeps account of a session that nothing more can be started for: it waits, or it is forgotten."""
        if session.queue:
            self.queued[session] = None
            return
        self.queued.pop(session, None)
        if not session.idle:
            return
        session.reading = None  # it counts for no request that comes later, and may be large
        empty = session.cached is None and not session.waits_for_slot
        if empty and self.sessions.get(session.key) is session:  # not another that came after it
            del self.sessions[session.key]

    def drop(self, session: SessionState) -> None:
        """The session is not cached from here on; what is being computed for it will not count."""
        if session.cached is not None:
            self.cache_of(session.cached.version).drop(session.cached)

    def unwind(self, session: SessionState) -> list[Request]:
        """Drops the cached state, and gives back the requests computed or being computed on it, in their order."""
        requests, session.pending = session.pending, []
        if isinstance(work := session.computing, Step) and not work.peek:
            requests.append(work)
        self.drop(session)
        return requests

    def fail(self, session: SessionState, requests: Iterable[Request], why: Rejection) -> None:
        """These requests fail with all that was computed behind them; the session goes on from the store's record."""
        failed = [request for request in requests if request.status is not DONE]
        fails = set(map(id, failed))
        session.queue = deque(request for request in session.queue if id(request) not in fails)
        self.requeue(session, [request for request in self.unwind(session) if id(request) not in fails])
        session.reading = None
        for request in failed:
            self.finish(request, why)
        self.ready[session] = None

    def broken(self, session: SessionState, requests: Iterable[Request]) -> None:
        """After an exception in what was done for these requests."""
        self.fail(session, requests, internal_error())

    def place(self, session: SessionState, version: Version, header: Header, state: bytes) -> CachedState | None:
        """Caches the session's state, if need be in place of that of another, which has nothing to do. None: every
        slot is at work."""
        cache = self.cache_of(version)
        cached = cache.put(session, header, state)
        if cached is None and not version.retired and (other := cache.evictable()) is not None:
            self.drop(other.session)
            self.settle(other.session)
            self.meter.evicted(session.key.model, "capacity")
            cached = cache.put(session, header, state)
        return cached

    def place_or_wait(
        self, session: SessionState, version: Version, header: Header, state: bytes
    ) -> CachedState | None:
        """The same. None: the session waits for a slot, and its first request is decided again when one is free."""
        cached = self.place(session, version, header, state)
        if cached is None:
            session.waits_for_slot = True
            self.cache_of(version).waiting.append(session)
        return cached


def no_reply(requests: Sequence[Request]) -> None:
    """For what no client has sent."""


def late(request: Request, now: float) -> Rejection | None:
    if now >= request.deadline:
        return Rejection(Reason.DEADLINE_PASSED, "the deadline passed before the request was committed")
    return None
