"""What can stand in a session's line. Each request carries its own reply channel and its own deadline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.meter import StepTimes
from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.errors import Rejection

from .rollout import Rollout

if TYPE_CHECKING:
    from .served import Served

Done = Callable[[Any], None]
"""Takes the request's result, or a Rejection. Called exactly once, on the loop's thread."""


@dataclass(slots=True, eq=False)
class Request:
    """One thing to do with one session. `deadline` is in seconds of the monotonic clock."""

    key: SessionKey
    deadline: float
    done: Done
    gone: bool = field(default=False, init=False)  # the caller went away: nobody reads the reply
    arrived: float = field(default=0.0, init=False)
    number: int = field(default=0, init=False)  # order of arrival over all sessions
    held_bytes: int = field(default=0, init=False)  # what it and its reply take until it is answered
    answered: bool = field(default=False, init=False)  # or it goes on as another
    conflicts: int = field(default=0, init=False)  # commits lost against other writers
    unknowns: int = field(default=0, init=False)  # commits without an answer

    touches = True  # its success is a sign of life: it refreshes the TTL


@dataclass(slots=True, eq=False)
class Step(Request):
    """One chunk. `data` is `steps` time steps in the model's dtype, raw."""

    data: bytes
    steps: int
    position: Position | None
    acked: int | None  # the client holds every reply up to here; None: up to its position
    peek: bool
    wanted: frozenset[str]  # per-step outputs
    wants_state: bool
    rollout: Rollout | None = None  # with `peek` only
    started: float = field(default=0.0, init=False)  # first slice
    computed: float = field(default=0.0, init=False)  # last slice
    loading: float = field(default=0.0, init=False)  # seconds in the store's read and the rebuild
    distrusts_hot: bool = field(default=False, init=False)  # to be decided on the store's record only

    @property
    def all_steps(self) -> int:
        """Those that have outputs: the chunk's and the rolled ones."""
        return self.steps if self.rollout is None else self.steps + self.rollout.steps

    def acked_at(self, step: int) -> int:
        """The step up to which the client holds every reply, when this chunk is applied at `step`."""
        return step if self.acked is None else min(self.acked, step)

    def times(self, now: float) -> StepTimes:
        queue = max(self.started - self.arrived - self.loading, 0.0)
        compute = max(self.computed - self.started, 0.0)
        return StepTimes(queue, self.loading, compute, max(now - self.computed, 0.0), now - self.arrived)


@dataclass(frozen=True, slots=True)
class StepReply:
    """outputs: by name, [T, ...]. state: state_bytes raw bytes after the chunk, where wanted."""

    served: Served
    outputs: Mapping[str, Array]
    state: bytes | None
    position: Position
    created: bool
    replayed: bool
    queued_seconds: float
    computed_seconds: float


@dataclass(slots=True, eq=False)
class Open(Request):
    request_id: bytes
    expect: Position | None
    ttl_ms: int | None  # None: the server's default for a new session, unchanged for an old one
    initial_state: bytes | None
    content: bytes = b""  # see domain.origin


@dataclass(frozen=True, slots=True)
class OpenReply:
    header: Header
    created: bool


@dataclass(slots=True, eq=False)
class Reset(Request):
    generation: bytes
    request_id: bytes
    content: bytes = b""


@dataclass(slots=True, eq=False)
class SetState(Request):
    generation: bytes
    request_id: bytes
    step: int
    state: bytes
    content: bytes = b""


class Policy(Enum):
    """What becomes of the state of a session that another version takes over."""

    KEEP = "keep"  # stays as it is
    RERUN = "rerun"  # is what a window of inputs gives
    RESET = "reset"  # is the initial one


@dataclass(slots=True, eq=False)
class CarryOver(Request):
    """target: the fingerprint of a served version. data: RERUN's window, `steps` time steps, raw."""

    generation: bytes
    request_id: bytes
    target: bytes
    policy: Policy
    data: bytes
    steps: int
    content: bytes = b""


@dataclass(slots=True, eq=False)
class Fork(Request):
    """Stands in the source's line; what it reads there goes on as a `Plant` in the target's."""

    target: SessionKey
    position: Position | None
    request_id: bytes
    content: bytes = b""


@dataclass(slots=True, eq=False)
class Plant(Request):
    """Creates a session as a copy. Where the source could not be read, `otherwise` says why: a retry may still find
    that its first try had succeeded."""

    request_id: bytes
    copy: Record | None
    otherwise: Rejection | None
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Moved:
    """The reply to Reset, SetState, CarryOver and Fork: where the session stands now."""

    position: Position


@dataclass(slots=True, eq=False)
class Delete(Request):
    """generation: empty for a damaged session only. where: the field that it came in, for a refusal."""

    generation: bytes
    where: str = "generation"


@dataclass(frozen=True, slots=True)
class Deleted:
    deleted: bool


@dataclass(slots=True, eq=False)
class GetState(Request):
    pass


@dataclass(frozen=True, slots=True)
class StateReply:
    served: Served
    position: Position
    state: bytes


@dataclass(slots=True, eq=False)
class GetSession(Request):
    touches = False


@dataclass(frozen=True, slots=True)
class SessionReply:
    header: Header
    hot: bool
