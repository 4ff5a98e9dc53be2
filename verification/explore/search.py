"""Searches histories: all of them, the shortest that breaks a promise, or as many as time allows."""

from __future__ import annotations

import gc
import io
import pickle
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cellkeeper_service.core.guarded_meter import GuardedMeter
from cellkeeper_service.core.limits import Clock, Limits
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.domain.store import Commit
from cellkeeper_service.errors import Reason, Rejection

from .events import Event
from .fingerprint import fingerprint
from .scope import Scope
from .sequential_model import Violation, forget
from .universe import Universe

_values: dict[Any, int] = {}
_by_number: list[Any] = []


def _value(number: int) -> Any:
    return _by_number[number]


def _reduce_value(value: Any) -> Any:
    """Shares immutable values between all worlds."""
    number = _values.setdefault(value, len(_by_number))
    if number == len(_by_number):
        _by_number.append(value)
    return _value, (number,)


def _reduce_rejection(rejection: Rejection) -> Any:
    return _rejection, (rejection.reason, rejection.message, rejection.position)


def _rejection(reason: Reason, message: str, position: Position | None) -> Rejection:
    return Rejection(reason, message, position=position)


_DISPATCH = {
    Rejection: _reduce_rejection,
    **dict.fromkeys((ModelSpec, Limits, Clock, Scope, Header, Record, Commit, GuardedMeter), _reduce_value),
}


def freeze(universe: Universe) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 5)
    pickler.dispatch_table = _DISPATCH
    pickler.dump(universe)
    return buffer.getvalue()


def thaw(frozen: bytes) -> Universe:
    universe: Universe = pickle.loads(frozen)
    return universe


@dataclass
class Counterexample:
    events: list[Event]
    why: str


@dataclass
class Found:
    """The result of an exploration. complete: every history of the scope was explored."""

    states: int = 0
    histories: int = 0
    complete: bool = False
    longest: int = 0
    seconds: float = 0.0
    counterexample: Counterexample | None = None


Trace = tuple[Any, ...]  # (previous trace, event), or ()


def events_of(trace: Trace) -> list[Event]:
    events: list[Event] = []
    while trace:
        trace, event = trace
        events.append(event)
    return events[::-1]


@cache
def _frozen_before() -> bool:
    """Returns True if the tests have frozen objects, for longer than an exploration takes. Counts them once, because
    that takes as long as an exploration of a hundred states."""
    return gc.get_freeze_count() > 0


@contextmanager
def rare_collections() -> Iterator[None]:
    """Excludes older objects from garbage collections, and makes collections rarer.

    Worlds are made and dropped by the thousand. With a larger threshold, there are fewer collections, but dropped
    worlds have left the processor's caches before their memory is used again.
    """
    thresholds = gc.get_threshold()
    frozen_before = _frozen_before()
    gc.collect()  # garbage that is frozen stays
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen_before:
            gc.unfreeze()


def explore(
    scope: Scope,
    *,
    max_states: int,
    max_seconds: float = 1e9,
    shortest: bool = False,
    begin: Sequence[Event] = (),
) -> Found:
    """Explores every history, state by state. Continues only once from equivalent states.

    shortest: breadth first, so that the first counterexample has the fewest events. begin: the events that have already
    happened.
    """
    with rare_collections():
        return _explore(scope, max_states, max_seconds, shortest, begin)


ENDLESS = "nothing that can happen from here on ends: something is sent again and again"


@dataclass
class Graph:
    """The states of a scope. traces: how each was first reached. before: those that lead to it. ends: those in which
    nothing more can happen."""

    traces: dict[int, Trace] = field(default_factory=dict)
    before: dict[int, list[int]] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)

    def endless(self) -> Trace | None:
        """Returns the way to a state from which no end can be reached, once all states are there; None: there is none.

        Every step of an endless retry keeps the other promises.
        """
        can_end = set(self.ends)
        waiting = list(self.ends)
        while waiting:
            for before in self.before.get(waiting.pop(), ()):
                if before not in can_end:
                    can_end.add(before)
                    waiting.append(before)
        ways = [trace for mark, trace in self.traces.items() if mark not in can_end]
        return min(ways, key=lambda trace: len(events_of(trace)), default=None)


@dataclass
class _Open:
    """A state to continue from: the world itself while it is the newest, frozen otherwise."""

    world: Universe | bytes
    mark: int
    trace: Trace
    depth: int

    def freeze(self) -> bytes:
        if isinstance(self.world, Universe):
            self.world = freeze(self.world)
        return self.world


def _explore(scope: Scope, max_states: int, max_seconds: float, shortest: bool, begin: Sequence[Event]) -> Found:
    forget()
    started, found = time.monotonic(), Found()
    first = Universe(scope)
    trace: Trace = ()
    for event in begin:
        first.do(event)
        trace = (trace, event)
    graph = Graph()
    seen = graph.traces
    mark = fingerprint(first)
    seen[mark] = trace
    open_states = deque([_Open(first, mark, trace, len(begin))])
    while open_states and len(seen) < max_states and time.monotonic() - started < max_seconds:
        state = open_states.popleft() if shortest else open_states.pop()
        found.longest = max(found.longest, state.depth)
        trace = state.trace
        try:
            universe = state.world if isinstance(state.world, Universe) else thaw(state.world)
            events = universe.events()
            if not events:
                found.histories += 1
                graph.ends.append(state.mark)
                universe.finish()
            elif len(events) > 1:
                state.world = state.world if isinstance(state.world, bytes) else freeze(universe)
            for number, event in enumerate(events):
                trace = (state.trace, event)
                if number and isinstance(state.world, bytes):
                    universe = thaw(state.world)
                universe.do(event)
                mark = fingerprint(universe)
                graph.before.setdefault(mark, []).append(state.mark)
                if mark not in seen:
                    seen[mark] = trace
                    if open_states:
                        open_states[-1].freeze()
                    open_states.append(_Open(universe, mark, trace, state.depth + 1))
        except Exception as error:  # noqa: BLE001 - any exception of the code under test is a finding
            found.counterexample = Counterexample(events_of(trace), explain(error))
            break
    found.complete = not open_states and found.counterexample is None
    if found.complete and (endless := graph.endless()) is not None:
        found.counterexample, found.complete = Counterexample(events_of(endless), ENDLESS), False
    found.states, found.seconds = len(seen), time.monotonic() - started
    return found


def walk(scope: Scope, draw: random.Random, max_events: int = 2_000) -> Counterexample | None:
    """Runs one random history, in which ordinary events are more frequent than faults.

    max_events: a history that is longer counts as endless. Two clients that ask the replica without their version again
    and again have needed 400.
    """
    forget()
    universe, done = Universe(scope), []
    try:
        while events := universe.events():
            weights = [WEIGHTS.get(event[0], 1.0) for event in events]
            event = draw.choices(events, weights)[0]
            done.append(event)
            universe.do(event)
            if len(done) > max_events:
                raise Violation(f"no end after {max_events} events")
        universe.finish()
    except Exception as error:  # noqa: BLE001 - any exception of the code under test is a finding
        return Counterexample(done, explain(error))
    return None


WEIGHTS = {
    "timeout": 0.2,
    "give_up": 0.15,
    "restart": 0.1,
    "unknown": 0.3,
    "refuse": 0.1,
    "unread": 0.1,
    "fall_back": 0.3,
    "power_cut": 0.1,
    "crash": 0.1,
    "slow": 0.3,
    "arrive": 0.3,
    "late": 0.3,
    "overdue": 0.1,
    "gone": 0.1,
    "idle": 0.1,
    "expired": 0.1,
    "lapsed": 0.1,
    "exchange": 0.1,
}


def replay(scope: Scope, events: list[Event]) -> Counterexample | None:
    """Replays these events, without those that cannot happen. Returns the counterexample, if any."""
    universe, done = Universe(scope), []
    try:
        for event in events:
            if event in universe.events():
                done.append(event)
                universe.do(event)
    except Exception as error:  # noqa: BLE001
        return Counterexample(done, explain(error))
    return None


def shrink(scope: Scope, counterexample: Counterexample) -> Counterexample:
    """Removes events, ever fewer at a time, as long as some promise is still broken."""
    size = max(1, len(counterexample.events) // 2)
    while size:
        at = 0
        while at < len(counterexample.events):
            fewer = counterexample.events[:at] + counterexample.events[at + size :]
            forget()
            again = replay(scope, fewer)
            if again is not None and len(again.events) < len(counterexample.events):
                counterexample = again
            else:
                at += size
        size //= 2
    return counterexample


def explain(error: Exception) -> str:
    return str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"
