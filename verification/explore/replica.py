"""One replica of the explored world, with what is in flight between it and the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.guarded_meter import GuardedMeter
from cellkeeper_service.core.limits import Clock, Limits
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.core.requests import Request
from cellkeeper_service.core.session import InflightCommit, SessionState
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Load, StoreError

from tests.unit.core.counting_engine import CountingEngine
from tests.unit.core.driven_core import unanswered

from .scope import Scope

NO_METER = GuardedMeter(Meter())  # has no state: all worlds share it


def no_seconds() -> float:
    return 0.0


def no_milliseconds() -> int:
    return 0


@dataclass(eq=False)
class Read:
    """A session's record on its way from the store.

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


@dataclass(eq=False)
class Replica:
    """One replica. commits_together: commits that are ready at the same time go to the store in one call."""

    name: str
    engine: CountingEngine
    core: Core
    commits_together: bool
    reads: list[Read] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)

    def go_on(self) -> None:
        """Lets the core process what has happened, answers its callers, and collects the work it wants done."""
        core = self.core
        self._turn()
        while core.context.ready or core.wants_load or core.wants_commit:
            self._turn()

    def _turn(self) -> None:
        if self.batches:
            self.core.context.begin_event()
            self.core._advance_ready()
        else:
            self.batches += self.core.schedule()
        for request in self.core.take_finished():
            request.done([request])
        sessions, loads = self.core.take_loads()
        self.reads += [Read([session], [load]) for session, load in zip(sessions, loads, strict=True)]
        commits = self.core.take_commits()
        together = [one for one in commits if self.commits_together and isinstance(one.call, Commit)]
        groups = ([together] if together else []) + [[one] for one in commits if one not in together]
        self.writes += [Write(group, [one.call for one in group], self.name) for group in groups]

    @property
    def blank(self) -> bool:
        """True if nothing has ever arrived here."""
        return not (self.core.context.sessions or self.reads or self.batches or self.writes)

    @property
    def requests(self) -> list[Request]:
        """All unanswered requests."""
        return unanswered(self.core)

    @property
    def holds_work(self) -> bool:
        """True if it has something to do, though nothing is in flight."""
        core = self.core
        waiting = any(cache.waiting for cache in core.context.caches.values())
        return core.has_work or core.wants_load or core.wants_commit or waiting


def new_replica(name: str, scope: Scope, mint: Callable[[], bytes]) -> Replica:
    """Returns a replica at which nothing has arrived."""
    due_steps = scope.other_due_steps if name == "B" and scope.other_due_steps else scope.due_steps
    limits = Limits(max_log_steps=scope.max_log_steps, max_slice_steps=4, max_long_steps=8)
    engine = CountingEngine()
    version = Version(engine, scope.slots, due_steps)
    version.due_steps = due_steps  # regardless of the state's size
    core = Core({"m": Models([version])}, limits, Clock(no_seconds, no_milliseconds), NO_METER, mint)
    return Replica(name, engine, core, scope.commits_together)
