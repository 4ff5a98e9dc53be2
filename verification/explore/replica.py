"""One replica of the explored world, and what it has on its way to the store and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.limits import Clock, Limits, TickLimits
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.core.requests import Request
from cellkeeper_service.core.session import InflightCommit, SessionState
from cellkeeper_service.domain.meter import NullMeter
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Load, StoreError

from tests.unit.core.counting_engine import CountingEngine
from tests.unit.core.driven_core import unanswered

from .scope import Scope


def no_seconds() -> float:
    return 0.0


def no_milliseconds() -> int:
    return 0


@dataclass(eq=False)
class Read:
    """A session's record on its way from the store. results: None until the store has read it. read_at: a point of the
    store's file."""

    sessions: list[SessionState]
    loads: list[Load]
    results: list[Record | StoreError | None] | None = None
    read_at: int = 0


@dataclass(eq=False)
class Write:
    """Commits that go to the store in one call, or a delete, on their way there and back.

    commits: what the core waits for; empty: nobody waits any more. connection: that of this replica. results: None
    until the store has done it. applied_at: a point of the store's file.
    """

    commits: list[InflightCommit]
    calls: list[Commit | Delete]
    connection: str
    results: list[CommitResult] | None = None
    applied_at: int = 0

    def without_answer(self) -> Write:
        """The same, still on its way; nobody waits for it."""
        return Write([], self.calls, self.connection)


@dataclass(eq=False)
class Replica:
    """commits_together: the commits that are ready at once go to the store in one call."""

    name: str
    engine: CountingEngine
    core: Core
    commits_together: bool
    reads: list[Read] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)

    def go_on(self) -> None:
        """Lets the core go on with what has happened, tells the callers, and takes what it wants done."""
        core = self.core
        self._turn()
        while core.context.ready or core.wants_load or core.wants_commit:
            self._turn()

    def _turn(self) -> None:
        self.batches += self.core.schedule(engine_is_free=not self.batches)
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
        """Nothing ever came here."""
        return not (self.core.context.sessions or self.reads or self.batches or self.writes)

    @property
    def requests(self) -> list[Request]:
        """All that have not been answered."""
        return unanswered(self.core)

    @property
    def holds_work(self) -> bool:
        """Whether it has something to do, though nothing is on its way."""
        core = self.core
        waiting = any(cache.waiting for cache in core.context.caches.values())
        return core.has_work or core.wants_load or core.wants_commit or waiting


def new_replica(name: str, scope: Scope, mint: Callable[[], bytes]) -> Replica:
    """A replica that nothing ever came to."""
    due_steps = scope.other_due_steps if name == "B" and scope.other_due_steps else scope.due_steps
    limits = Limits(max_log_steps=scope.max_log_steps, tick=TickLimits(4, 8))
    engine = CountingEngine()
    version = Version(engine, scope.slots, due_steps)
    version.due_steps = due_steps  # whatever the size of the state
    core = Core({"m": Models([version])}, limits, Clock(no_seconds, no_milliseconds), NullMeter(), mint)
    return Replica(name, engine, core, scope.commits_together)
