"""Checks of single fields. Each raises a Rejection that names the field, what was received and what was expected."""

from __future__ import annotations

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.domain.position import GENERATION_BYTES, HEAD_BYTES, MAX_STEP, Position
from cellkeeper_service.domain.record import NO_ORIGIN, ORIGIN_BYTES
from cellkeeper_service.errors import Reason, Rejection, invalid

MAX_SESSION_BYTES = 256
PLAIN_SESSION_LENGTH = MAX_SESSION_BYTES // 4  # this many characters always fit
STATE_OUTPUT, STATE_PREFIX = "state", "state."
"""The output that stands for all state tensors, and the beginning of each one's name in a reply."""


def session_id(text: str, field: str) -> str:
    """Returns the id. It must have 1 to 256 bytes of UTF-8."""
    if not is_session_id(text):
        raise invalid(field, f"{len(text.encode())} bytes", f"1 to {MAX_SESSION_BYTES} bytes of UTF-8")
    return text


def is_session_id(text: str) -> bool:
    """Returns True if a session can have this id."""
    count = len(text)
    return 0 < count <= PLAIN_SESSION_LENGTH or 0 < count <= MAX_SESSION_BYTES >= len(text.encode())


def position(message: pb.Position, field: str = "position") -> Position:
    generation_bytes(message.generation, f"{field}.generation")
    if len(message.head) != HEAD_BYTES:
        raise invalid(f"{field}.head", f"{len(message.head)} bytes", f"{HEAD_BYTES} bytes")
    return Position(message.generation, step(message.step, f"{field}.step"), message.head)


def step(value: int, field: str) -> int:
    """Returns the step of a position."""
    if value > MAX_STEP:
        raise invalid(field, value, f"less than {MAX_STEP + 1}")
    return value


def generation_bytes(value: bytes, field: str) -> bytes:
    if len(value) != GENERATION_BYTES:
        raise invalid(field, f"{len(value)} bytes", f"{GENERATION_BYTES} bytes")
    return value


def request_id(value: bytes, field: str = "request_id") -> bytes:
    if len(value) != ORIGIN_BYTES or value == NO_ORIGIN:
        came = "zeros" if value == NO_ORIGIN else f"{len(value)} bytes"
        raise invalid(field, came, f"{ORIGIN_BYTES} random bytes, the same for every retry")
    return value


def acked(value: int, asked: Position | None, field: str = "acked") -> int:
    if asked is not None and value > asked.step:
        raise invalid(field, value, f"at most the position's step, {asked.step}: the client cannot have a later reply")
    return value


def duplicate(session: str, field: str) -> Rejection:
    text = f"{field}: got session {session!r} twice in one request, expected each once"
    return Rejection(Reason.DUPLICATE_SESSION, text, field=field)
