"""One replica of the explored world, and what it has on its way to the store and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cellkeeper_service.core.models import Models as CoreModels
from cellkeeper_service.core.models import Version
from cellkeeper_service.domain.meter import NullMeter
from cellkeeper_service.domain.store import Commit, CommitResult, Load
from cellkeeper_service.sessions.limits import Clock, Limits
from cellkeeper_service.sessions.planner import TickLimits
from cellkeeper_service.sessions.requests import Request
from cellkeeper_service.sessions.served import Models, Served
from cellkeeper_service.sessions.sessions import Sessions

from tests.core.counting_engine import CountingEngine
from tests.core.driven_core import DrivenCore

from .scope import Scope


def still() -> float:
    return 0.0


def still_ms() -> int:
    return 0


@dataclass(eq=False)
class Read:
    """Records on their way from the store. results: None while they are not read. read_at: a point of the store's
    file."""

    lines: list[Any]
    loads: list[Load]
    results: list[Any] | None = None
    read_at: int = 0


@dataclass(eq=False)
class Write:
    """A commit (several of one tick), or a delete, on its way to the store and back.

    connection: that of this replica. results: None while it has not landed. landed_at: a point of the store's file.
    """

    flights: list[Any]
    calls: list[Any]
    connection: str
    results: list[CommitResult] | None = None
    landed_at: int = 0

    def without_answer(self) -> Write:
        """The same, still on its way; nobody waits for it."""
        return Write([], self.calls, self.connection)


@dataclass(eq=False)
class Node:
    """One replica. ticks: the commits that are ready at once go to the store together."""

    name: str
    served: Any
    sessions: Any
    ticks: bool = False
    reads: list[Read] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)

    def collect(self) -> None:
        """Takes out of the heart what it wants done."""
        lines, loads = self.sessions.take_loads()
        self.reads += [Read([line], [load]) for line, load in zip(lines, loads, strict=True)]
        if not self.calls:
            self.calls = self.sessions.take_calls()
        flights = self.sessions.take_flights()
        together = [flight for flight in flights if self.ticks and isinstance(flight.call, Commit)]
        if together:
            self.writes.append(Write(together, [flight.call for flight in together], self.name))
        self.writes += [Write([flight], [flight.call], self.name) for flight in flights if flight not in together]

    @property
    def blank(self) -> bool:
        """Nothing ever came here."""
        held = self.sessions.core.context.sessions if self.runs_core else self.sessions._desk.lines
        return not held and not (self.reads or self.calls or self.writes)

    @property
    def runs_core(self) -> bool:
        return isinstance(self.sessions, DrivenCore)

    @property
    def requests(self) -> list[Request]:
        """All that have not been answered."""
        if self.runs_core:
            return list(self.sessions.requests())
        return [request for line in self.sessions._desk.lines.values() for request in requests_of(line)]

    @property
    def holds_work(self) -> bool:
        """Whether it has something to do, though nothing is on its way."""
        if self.runs_core:
            return bool(self.sessions.holds_work)
        served = self.served
        return bool(served.starved or served.singles or served.longs or served.cohorts or self.sessions.wants_flight)


def requests_of(line: Any) -> list[Request]:
    """Everything in this line that has not been answered."""
    found = list(line.queue)
    found += [item.request for item in line.pending]
    if line.flight is not None:
        found += [item.request for item in line.flight.items]
    if line.cohort is not None:
        cohort = line.cohort
        found.append(cohort.columns.steps[cohort.items[cohort.lines.index(line)]])
    if line.run is not None:
        found += [collect.request for collect in line.run.collects]
    return found


def new_node(name: str, scope: Scope, mint: Callable[[], bytes]) -> Node:
    """A replica that nothing ever came to."""
    due_steps = scope.other_due_steps if name == "B" and scope.other_due_steps else scope.due_steps
    limits = Limits(max_log_steps=scope.max_log_steps, tick=TickLimits(4, 8))
    clock = Clock(still, still_ms)
    if scope.core:
        version = Version(CountingEngine(), scope.slots, due_steps)
        version.due_steps = due_steps  # whatever the size of the state
        core = DrivenCore({"m": CoreModels([version])}, limits, clock, NullMeter(), mint)
        return Node(name, version, core, scope.ticks)
    served = Served(CountingEngine(), scope.slots, due_steps)
    served.due_steps = due_steps
    sessions = Sessions({"m": Models([served])}, limits, clock, NullMeter(), mint)
    return Node(name, served, sessions, scope.ticks)
