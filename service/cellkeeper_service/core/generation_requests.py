"""Requests that begin, replace, copy or end a generation, and their replies."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from cellkeeper_service.domain.position import Position
from cellkeeper_service.domain.record import Header, Record, SessionKey
from cellkeeper_service.errors import Rejection

from .requests import Computable, Request


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
    """What happens to the state of a session that another version takes over."""

    KEEP = "keep"  # it stays as it is
    RERUN = "rerun"  # it is computed anew from a window of inputs
    RESET = "reset"  # it becomes the initial one


@dataclass(slots=True, eq=False)
class CarryOver(Computable):
    """target: the fingerprint of a served version. data: RERUN's window, `steps` time steps, raw. position: with KEEP,
    where the caller knows the session to be; None: the caller does not say."""

    generation: bytes
    request_id: bytes
    target: bytes
    policy: Policy
    data: bytes
    steps: int
    content: bytes = b""
    position: Position | None = None


@dataclass(slots=True, eq=False)
class Fork(Request):
    """Waits in the source's queue, and once that is read, in the target's.

    source: the record to copy, up to `position`, or why there is none: a retry may still find that its first try
    succeeded. None: it is not read yet."""

    target: SessionKey
    position: Position | None
    request_id: bytes
    content: bytes = b""
    ttl_ms: int | None = None  # None: the source's
    source: Record | Rejection | None = field(default=None, init=False)


@dataclass(frozen=True, slots=True)
class Moved:
    """The reply to Reset, SetState, CarryOver and Fork: the session's new position."""

    position: Position


@dataclass(slots=True, eq=False)
class Delete(Request):
    """generation: empty for a damaged session only. where: the field that contained it, for a refusal."""

    generation: bytes
    where: str = "generation"

    touches = False


@dataclass(frozen=True, slots=True)
class Deleted:
    deleted: bool
