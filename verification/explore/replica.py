"""One replica of the explored world, with what is in flight between it and the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.guarded_meter import GuardedMeter
from cellkeeper_service.core.limits import Clock, Limits
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.core.requests import Request
from cellkeeper_service.core.session import CachedState, InflightCommit, SessionState
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Load, StoreError

from tests.unit.core.counting_engine import CountingEngine
from tests.unit.core.driven_core import unanswered

from .scope import Scope
from .sequential_model import Violation

NO_METER = GuardedMeter(Meter())  # has no state: all worlds share it


def no_seconds() -> float:
    return 0.0


def no_milliseconds() -> int:
    return 0


@dataclass(eq=False)
class Read:
    """A session's record on its way from the store; with `one_call` those of several.

    results: None until the store has read it. read_at: a point in the store's file.
    """

    sessions: list[SessionState]
    loads: list[Load]
    results: list[Record | StoreError | None] | None = None
    read_at: int = 0


@dataclass(eq=False)
class Write:
    """Commits that go to the store in one call, or a delete, on the way there and back.

    commits: those that the core waits for; empty: nobody waits any more. connection: this replica's. results: None
    until the store has executed it. applied_at: a point in the store's file.
    """

    commits: list[InflightCommit]
    calls: list[Commit | Delete]
    connection: str
    results: list[CommitResult] | None = None
    applied_at: int = 0

    def without_answer(self) -> Write:
        """Returns the same write, still on its way, with nobody waiting for it."""
        return Write([], self.calls, self.connection)


def state_of(cached: CachedState) -> int:
    """Returns the cached state: the engine's, or the one that it will get."""
    seed, engine = cached.seed, cached.version.engine
    return int(engine._states[cached.row]) if seed is None else int.from_bytes(seed, "little")  # type: ignore[attr-defined]


@dataclass(eq=False)
class Replica:
    """One replica. commits_together: commits that are ready at the same time go to the store in one call."""

    name: str
    serves: bytes
    core: Core
    commits_together: bool
    one_call: bool
    reads: list[Read] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)

    def go_on(self) -> None:
        """Lets the core process what has happened, answers its callers, and collects the work it wants done."""
        self._turn()
        while self._can_go_on:
            self._turn()

    @property
    def _can_go_on(self) -> bool:
        core = self.core
        if core.context.ready or (core.has_work and not self.batches):
            return True
        may_read, may_write = self._has_room(self.reads), self._has_room(self.writes)
        return (core.wants_load and may_read) or (core.wants_commit and may_write)

    def _has_room(self, under_way: list[Any]) -> bool:
        return not (self.one_call and under_way)

    def _turn(self) -> None:
        if self.batches:
            self.core.context.begin_event()
            self.core._advance_ready()
        else:
            self.batches += self.core.schedule()
        for request in self.core.take_finished():
            request.done([request])
        if self._has_room(self.reads):
            self._read()
        if self._has_room(self.writes):
            self._write()

    def _read(self) -> None:
        sessions, loads = self.core.take_loads()
        if self.one_call:
            self.reads += [Read(sessions, loads)] if loads else []
        else:
            self.reads += [Read([session], [load]) for session, load in zip(sessions, loads, strict=True)]

    def _write(self) -> None:
        commits = self.core.take_commits()
        for request in [request for commit in commits for request in commit.requests]:
            if self.core.context.now >= request.deadline:
                raise Violation(f"{request.done.name} is sent to the store after its deadline")  # type: ignore[attr-defined]
        together = [one for one in commits if self.commits_together and isinstance(one.call, Commit)]
        groups = ([together] if together else []) + [[one] for one in commits if one not in together]
        self.writes += [Write(group, [one.call for one in group], self.name) for group in groups]

    def exchange(self, serves: bytes, scope: Scope) -> None:
        """Serves these versions from now on, the first to new sessions."""
        models = self.core.context.models["m"]
        loaded = [models.find(bytes([version]) * 32) or new_version(self.name, scope, version) for version in serves]
        models.exchange(loaded)
        self.serves = serves

    @property
    def served(self) -> frozenset[bytes]:
        """The fingerprints of the versions that it serves."""
        return frozenset(bytes([version]) * 32 for version in self.serves)

    @property
    def blank(self) -> bool:
        """True if nothing has ever arrived here."""
        return not (self.core.context.sessions or self.reads or self.batches or self.writes)

    @property
    def requests(self) -> list[Request]:
        """All unanswered requests, session by session."""
        return sorted(unanswered(self.core), key=lambda request: request.key)

    @property
    def has_to_expire(self) -> bool:
        """True if a waiting request's deadline has passed, its caller is gone, or a version is to be let go."""
        core = self.core
        if core.context.models["m"].retiring:
            return True
        return any(core.context.dead(one) for session in core.context.sessions.values() for one in session.queue)

    @property
    def holds_work(self) -> bool:
        """True if it has something to do, though nothing is in flight."""
        core = self.core
        waiting = any(cache.waiting for cache in core.context.caches.values())
        return core.has_work or core.wants_load or core.wants_commit or waiting

    @property
    def leftover(self) -> str:
        """What it keeps at rest besides the cached states of idle sessions; empty: nothing."""
        context = self.core.context
        if context.admission.unanswered_bytes or context.queued:
            return "the account of requests that it has answered"
        for session in context.sessions.values():
            if session.cached is None or not session.idle or session.reading is not None:
                return f"what it needed for requests of {session.key.session}"
            if session.cached.version.retired:
                return f"a state of {session.key.session} for a version that it does not serve any more"
        lost = any(len(cache) != len(cache.sessions) for cache in context.caches.values())
        return "a slot that holds no session" if lost else ""


def new_replica(name: str, serves: bytes, scope: Scope, mint: Callable[[], bytes]) -> Replica:
    """Returns a replica at which nothing has arrived."""
    limits = Limits(
        max_log_steps=scope.max_log_steps, max_slice_steps=4, max_long_steps=8, default_ttl_ms=scope.default_ttl_ms
    )
    models = Models([new_version(name, scope, version) for version in serves])
    core = Core({"m": models}, limits, Clock(no_seconds, no_milliseconds), NO_METER, mint)
    return Replica(name, serves, core, scope.commits_together, scope.one_call)


def new_version(name: str, scope: Scope, version: int) -> Version:
    """Returns a version as the replica of that name loads it."""
    due_steps = scope.other_due_steps if name == "B" and scope.other_due_steps else scope.due_steps
    loaded = Version(CountingEngine(version=bytes([version])), scope.slots, due_steps)
    loaded.due_steps = due_steps  # regardless of the state's size
    return loaded
