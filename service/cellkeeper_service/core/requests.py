"""Requests: each is one slotted object from arrival to reply, with a status."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.meter import StepTimes
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.domain.store import Commit, Delete
from cellkeeper_service.errors import Rejection

from .outputs import Piece, joined
from .sequence import Sequenced

if TYPE_CHECKING:
    from .models import Version

Done = Callable[[Sequence[Any]], None]
"""Takes finished requests: in one call those of a caller that finished together, and each request exactly once. Called
on the loop's thread."""


@dataclass(frozen=True, slots=True)
class Write:
    """A decision to write. Then the reply is `reply`. version: caches the written checkpoint, which is the session's
    state; None: nothing is cached."""

    call: Commit | Delete
    reply: Any
    version: Version | None = None


class RequestStatus(Enum):
    WAITING = "waiting"  # for earlier requests, or for the session's own commits
    LOADING = "loading"  # for the session's record
    READY = "ready"  # to be computed
    COMPUTING = "computing"  # a slice of it is in a batch
    COMMITTING = "committing"  # its write is in flight, or waits for the commit before it
    DONE = "done"  # it has its result


WAITING, LOADING, READY, COMPUTING, COMMITTING, DONE = RequestStatus
"""Names of their own, as every step goes through them all: a look-up in the class costs as much as a call."""


@dataclass(slots=True, eq=False)
class Request:
    """One operation on one session. deadline: seconds of the monotonic clock.

    gone: the caller went away, so nothing more is started for it. A write that was already decided may still happen; a
        retry finds it by its origin.
    """

    key: SessionKey
    deadline: float
    done: Done
    gone: bool = field(default=False, init=False)
    arrived: float = field(default=0.0, init=False)
    number: int = field(default=0, init=False)  # order of arrival over all sessions
    held_bytes: int = field(default=0, init=False)  # by it and its reply
    conflicts: int = field(default=0, init=False)  # commits lost against other writers
    unknowns: int = field(default=0, init=False)  # unanswered commits
    status: RequestStatus = field(default=WAITING, init=False)
    result: Any = field(default=None, init=False)  # see reply
    write: Write | None = field(default=None, init=False)  # what it commits, unless that is a chunk

    touches = True  # counts as use of the session: refreshes the TTL

    def reply(self) -> Any:
        """Returns what to tell the caller: the result, or a Rejection."""
        return self.result


@dataclass(slots=True, eq=False)
class Computable(Request):
    """A request that needs `to_compute` time steps computed, slice by slice; `computed` of them are.

    Single steps, chunks, peeks, forecasts, log replays, reads of the state and reruns of a window differ only in these
    fields, which `CachedState.start` sets whenever the request is decided.
    """

    to_compute: int = field(default=0, init=False)
    computed: int = field(default=0, init=False)
    unfed: int = field(default=0, init=False)  # so many of the last steps take predictions as inputs
    inputs: bytes = field(default=b"", init=False)  # raw; those of unfed steps are appended once known
    names: frozenset[str] = field(default=frozenset(), init=False)  # of the wanted outputs
    pieces: Sequence[Piece] = field(default=(), init=False)  # where its outputs are
    ends: Collection[int] = field(default=(), init=False)  # slices end there, as the state is needed
    checkpoint_at: int | None = field(default=None, init=False)  # its state becomes a candidate for a checkpoint
    checkpoint_state: bytes | None = field(default=None, init=False)
    end_state: bytes | None = field(default=None, init=False)  # if it is wanted
    started_at: float = field(default=0.0, init=False)  # first slice

    def slice_steps(self, max_slice_steps: int) -> int:
        """Returns the length of the next slice: the largest power of two that fits, so that slices of many sessions
        share a batch without padding."""
        ends = [self.to_compute - self.unfed, *(end for end in self.ends if end > self.computed)]
        left = min(min(ends) - self.computed, max_slice_steps)
        return 1 << (left.bit_length() - 1) if left > 0 else 0


@dataclass(slots=True, eq=False)
class LogReplay(Computable):
    """Computes the log of `record`, so that the request behind it finds the session's state. No client has sent it.

    duplicates: chunks that were applied before, which get their outputs again; for each, which step of the log is its
    first.
    """

    record: Record
    duplicates: dict[Step, int] = field(default_factory=dict, init=False)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A forecast: `steps` >= 1 time steps after a chunk, whose inputs are the model's own predictions.

    known: [steps, features that the caller supplies].
    """

    steps: int
    known: Array


@dataclass(slots=True, eq=False)
class Step(Computable):
    """One chunk. data: `steps` time steps in the model's dtype, raw."""

    data: bytes
    steps: int
    position: Position | None
    acked: int | None  # the client holds every reply up to this step; None: up to its position
    peek: bool
    wanted: frozenset[str]  # per-step outputs
    wants_state: bool
    rollout: Rollout | None = None  # with `peek` only
    computed_at: float = field(default=0.0, init=False)  # last slice
    load_seconds: float = field(default=0.0, init=False)  # of the store's read and the log replay
    distrusts_hot: bool = field(default=False, init=False)  # decided on the store's record only
    version: Version | None = field(default=None, init=False)  # that computed it
    at: int = field(default=0, init=False)  # the session's step when it was computed
    after: Position | None = field(default=None, init=False)  # once it is computed
    in_doubt: tuple[bytes, ...] = field(default=(), init=False)  # generations of unanswered commits: see commit.py
    created: bool = field(default=False, init=False)  # it created its session
    replayed: bool = field(default=False, init=False)  # it was applied before
    item: int = 0  # its place in its frame
    sequence: Sequenced | None = None  # without position: see Sequenced

    @property
    def all_steps(self) -> int:
        """The time steps that have outputs: the chunk's and the forecast's."""
        return self.steps if self.rollout is None else self.steps + self.rollout.steps

    def position_in(self, record: Record) -> Position | None:
        """Returns where the chunk belongs in the record's history; None: at its end."""
        return self.position if self.sequence is None else self.sequence.position_in(record)

    def acked_at(self, step: int) -> int:
        """Returns the step up to which the client holds every reply if this chunk is applied at `step`."""
        return step if self.acked is None else min(self.acked, step)

    def reply(self) -> StepReply | Rejection:
        """Returns the Rejection that ended it, or what it led to; `result` is a Rejection or None."""
        if self.result is not None:
            return self.result  # type: ignore[no-any-return]
        if self.version is None or self.after is None:
            raise RuntimeError("the reply is asked for of a step that was not computed")
        told = self.wanted, self.pieces, self.end_state, self.after, self.created, self.replayed
        times = max(self.started_at - self.arrived, 0.0), max(self.computed_at - self.started_at, 0.0)
        return StepReply(self.version, *told, *times)

    def times(self, now: float) -> StepTimes:
        queue = max(self.started_at - self.arrived - self.load_seconds, 0.0)
        compute, commit = max(self.computed_at - self.started_at, 0.0), max(now - self.computed_at, 0.0)
        return StepTimes(queue, self.load_seconds, compute, commit, now - self.arrived)


@dataclass(slots=True, eq=False)
class StepReply:
    """What the caller of an applied step, or of a peek, is told. state: state_bytes raw bytes after the chunk, if
    wanted."""

    served: Version
    wanted: frozenset[str]
    pieces: Sequence[Piece]
    state: bytes | None
    position: Position
    created: bool
    replayed: bool
    queued_seconds: float
    computed_seconds: float

    @property
    def outputs(self) -> dict[str, Array]:
        """The wanted outputs by name, [T, ...]. A frame's encoder gathers them by batch instead."""
        return {name: joined(self.pieces, name) for name in self.wanted}


@dataclass(slots=True, eq=False)
class GetState(Computable):
    pass


@dataclass(frozen=True, slots=True)
class StateReply:
    served: Version
    position: Position
    state: bytes


@dataclass(slots=True, eq=False)
class GetSession(Request):
    touches = False


@dataclass(frozen=True, slots=True)
class SessionReply:
    record: Record
    hot: bool

    @property
    def header(self) -> Header:
        return self.record.header
