"""Cohorts: the items of a frame, or steps that came one by one, that go the short way through the heart together.

The short way is for the ordinary case: one time step for a session that is hot, has nothing else to do, and stands
exactly where the item says. Such items need no decision, so they are kept as columns from the frame to its reply: one
object for all of them instead of several for each. Nothing of a session changes before the store has accepted the
step; whatever goes otherwise sends the item the long way, as a request of its own in its session's line.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from cellkeeper_service.core.state_change import state_change
from cellkeeper_service.domain.engine import Array, Computed
from cellkeeper_service.domain.headers import one_step_on
from cellkeeper_service.domain.record import Header
from cellkeeper_service.domain.store import Commit
from cellkeeper_service.errors import Rejection

from .requests import Step
from .served import Served

if TYPE_CHECKING:
    from .line import Line


class Columns(Protocol):
    """What the heart needs of single steps that it takes together, each session once.

    values: [items, *input shape] in the model's dtype. arrivals: when each item came, in seconds of the monotonic
    clock; nothing where all came together.
    """

    tenant: str
    model: str
    wanted: frozenset[str]
    deadline: float  # the earliest of the items'

    @property
    def arrivals(self) -> Sequence[float]: ...

    @property
    def values(self) -> Array: ...

    @property
    def gone(self) -> bool:
        """Whether a caller went away."""

    def fate(self, item: int) -> tuple[float, bool]:
        """The item's own deadline, and whether its caller went away."""

    def step(self, item: int) -> Step:
        """The item as a request of its own. Raises a Rejection where its fields do not allow one."""

    def refuse(self, item: int, why: Rejection) -> None:
        """The item's one reply."""

    def reply(self, replies: Replies) -> None:
        """The one reply of each of several items."""


class FrameColumns(Columns, Protocol):
    """Those of a frame whose fields have been checked: one caller, one deadline.

    positions: 32 bytes an item. acked: 8 bytes an item, or nothing.
    """

    sessions: Sequence[str]
    positions: bytes
    acked: bytes


class Replies(NamedTuple):
    """Items that were applied. positions: 32 bytes an item, after its step. outputs: by name, [items,
    ...]."""

    items: Sequence[int]
    positions: Sequence[bytes]
    outputs: Mapping[str, Array]
    queued_seconds: float
    computed_seconds: float


@dataclass(slots=True, eq=False)
class Cohort:
    """Items of one frame, or steps that came one by one, all of one model version. Index i of every column is one
    session."""

    columns: Columns
    served: Served
    items: list[int]
    lines: list[Line]
    rows: list[int]  # of the arena, where the states are; each one's other row takes the next state
    due: list[int]  # indices of those whose commit also writes the state before the step
    arrived: float
    started: float = 0.0
    computed: float = 0.0
    inputs: list[bytes] = field(default_factory=list)
    checkpoints: dict[int, bytes] = field(default_factory=dict)  # by index
    headers: list[Header] = field(default_factory=list)  # after the step
    outputs: dict[str, Array] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)  # indices of those that went the long way

    def __len__(self) -> int:
        return len(self.items)

    def take_out(self, indices: Collection[int]) -> Cohort:
        """Those leave it before it is computed: a cohort of their own."""
        out = Cohort(self.columns, self.served, [], [], [], [], self.arrived)
        stay = Cohort(self.columns, self.served, [], [], [], [], self.arrived)
        due = set(self.due)
        for index, item in enumerate(self.items):
            part = out if index in indices else stay
            if index in due:
                part.due.append(len(part))
            part.items.append(item)
            part.lines.append(self.lines[index])
            part.rows.append(self.rows[index])
        self.items, self.lines, self.rows, self.due = stay.items, stay.lines, stay.rows, stay.due
        return out

    def arrival(self, index: int) -> float:
        """When the item came."""
        arrivals = self.columns.arrivals
        return arrivals[self.items[index]] if arrivals else self.arrived

    def values(self) -> Array:
        """[items, *input shape]."""
        whole = self.columns.values
        return whole if len(self.items) == len(whole) else whole[self.items]


class CohortCall:
    """One engine call over the single steps of several cohorts. `execute` as in tick.EngineCall."""

    steps = 1

    def __init__(self, served: Served, cohorts: list[Cohort], now_ms: int, sample_change: bool) -> None:
        """now_ms: unix time, for the headers."""
        self.served = served
        self._now_ms = now_ms
        self.cohorts = cohorts
        self.batch = sum(map(len, cohorts))
        self.finite: Array | None = None  # bool [batch]; None: all are
        self.change: tuple[float, float] | None = None
        self._sample = sample_change

    def execute(self) -> None:
        """Keeps the states that become checkpoints, computes, and works out where each session stands then."""
        engine, cohorts = self.served.engine, self.cohorts
        if len(cohorts) == 1:
            read, values = np.array(cohorts[0].rows, np.intp), np.ascontiguousarray(cohorts[0].values())
        else:
            read = np.array(list(chain.from_iterable([cohort.rows for cohort in cohorts])), np.intp)
            values = np.concatenate([cohort.values() for cohort in cohorts])
        self._keep_checkpoints()
        wanted = self.served.wanted_with([cohort.columns.wanted for cohort in cohorts])
        computed = engine.run(values[np.newaxis], read, read ^ 1, wanted)
        self.finite = computed.finite
        if self._sample:
            self.change = state_change(engine, read[:1], read[:1] ^ 1)
        self._share_out(values.tobytes(), computed)

    def _keep_checkpoints(self) -> None:
        for cohort in self.cohorts:
            if cohort.due:
                rows = np.array([cohort.rows[index] for index in cohort.due], np.intp)
                states = self.served.engine.read_states(rows)
                cohort.checkpoints = {index: state.tobytes() for index, state in zip(cohort.due, states, strict=True)}

    def _share_out(self, raw: bytes, computed: Computed) -> None:
        width, start = self.served.spec.step_bytes, 0
        for cohort in self.cohorts:
            end = start + len(cohort)
            cohort.inputs = [raw[at : at + width] for at in range(start * width, end * width, width)]
            before = [line.hot.header for line in cohort.lines if line.hot is not None]
            if len(before) < len(cohort):
                raise RuntimeError("a session lost its hot copy while a step of it was computed")
            cohort.headers = one_step_on(before, cohort.inputs, self._now_ms, self.served.numerics, cohort.due)
            cohort.outputs = {name: computed.outputs[name][0, start:end] for name in cohort.columns.wanted}
            start = end


class CohortFlight(NamedTuple):
    """One item's commit."""

    cohort: Cohort
    number: int  # the item's index in the cohort
    call: Commit
