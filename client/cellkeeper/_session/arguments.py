"""Checks the arguments of a call other than inputs: seconds, ids, generations, positions, counts.

Every function raises InvalidArgument, which names the field, for anything but the expected type and range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from numbers import Integral, Real
from typing import Any, TypeVar

from ..errors import InvalidArgument
from ..position import Position

T = TypeVar("T")

MAX_TIMEOUT_SECONDS = 30 * 86_400.0
"""The wire counts milliseconds in 32 bits, which is 49.7 days; longer waits are cut to this."""
MAX_TTL_MS = 2**63 - 1
MAX_STEP = 2**64 - 1
MAX_ID_BYTES = 256
_POSITION = "a Position; Position.parse() reads one from text"


def invalid(field: str, came: str, expected: str, reason: str = "INVALID_FIELD") -> InvalidArgument:
    """Returns the error for the argument `field`. came, expected: what it is and what it should be, for the message."""
    return InvalidArgument(f"{field}: got {came}, expected {expected}", reason=reason, field=field)


def timeout_seconds(given: object, default: float, field: str = "timeout") -> float:
    """Returns seconds above 0, also from a timedelta; `default` for None. Cuts them to MAX_TIMEOUT_SECONDS."""
    if type(given) is float and 0.0 < given <= MAX_TIMEOUT_SECONDS:  # the usual case
        return given
    if given is None:
        return default
    seconds = _seconds(given, field, "above 0")
    if not seconds > 0:
        raise invalid(field, repr(given), "seconds above 0")
    return min(seconds, MAX_TIMEOUT_SECONDS)


def seconds_from_0(given: object, field: str) -> float:
    """Returns seconds of at least 0, also from a timedelta."""
    seconds = _seconds(given, field, "from 0")
    if seconds < 0:
        raise invalid(field, repr(given), "seconds from 0")
    return seconds


def ttl_milliseconds(given: object) -> int | None:
    """Converts seconds, which are 0 ("never expires") or at least 0.001, or a timedelta; None stays None."""
    if given is None:
        return None
    seconds = _seconds(given, "ttl", "from 0.001, or 0 for never")
    if seconds != 0 and not 0.001 <= seconds <= MAX_TTL_MS / 1000:
        raise invalid("ttl", repr(given), "seconds from 0.001, or 0 for never")
    return min(round(seconds * 1000), MAX_TTL_MS)


def session_id(given: object, field: str = "session") -> str:
    """Returns a string of 1..256 bytes of UTF-8."""
    text = id_text(given, field)
    size = len(text.encode())
    if not 1 <= size <= MAX_ID_BYTES:
        raise invalid(field, f"{size} bytes of UTF-8", f"1..{MAX_ID_BYTES}")
    return text


def several_ids(given: object) -> list[Any]:
    """Reads the argument `sessions`: any iterable of ids but one string. Does not check the ids."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise invalid("sessions", f"the {type(given).__name__} {given!r}", "several ids, for instance a list")
    return list(given)


def id_text(given: object, field: str) -> str:
    """Returns a string that UTF-8 can encode; it may be empty."""
    if not isinstance(given, str):
        hint = "" if given is None else "; convert it with str()"
        raise invalid(field, f"{type(given).__name__} {given!r}", f"a str{hint}")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise invalid(field, repr(given), "text without lone surrogates") from None
    return given


def generation_bytes(given: object) -> bytes:
    """Returns a generation, as in a Position."""
    return _instance(given, bytes, "generation", "bytes, as in a Position")


def fingerprint_bytes(given: object) -> bytes:
    """Returns a fingerprint, as in a Model; empty means the version that takes new sessions."""
    return _instance(given, bytes, "fingerprint", "bytes, as in a Model; bytes.fromhex() converts digits")


def position(given: object, field: str) -> Position | None:
    """Returns a Position, or None."""
    return None if given is None else _position(given, field)


def positions(given: object, field: str) -> Mapping[str, Position]:
    """Returns positions by id; none for None."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise invalid(field, type(given).__name__, "a mapping from ids to Positions")
    for name, each in given.items():
        _position(each, f"{field}[{id_text(name, field)}]")
    return given


def output_names(given: object) -> tuple[str, ...]:
    """Returns the names of outputs, at least one."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise invalid("outputs", repr(given), "a list of names")
    names = tuple(given)
    if not names or not all(isinstance(name, str) for name in names):
        raise invalid("outputs", repr(names), "one or more names")
    return names


def whole_number(given: object, field: str, least: int) -> int:
    """Returns an integer of at least `least`."""
    if not isinstance(given, Integral) or isinstance(given, bool) or given < least:
        raise invalid(field, repr(given), f"an integer of at least {least}")
    return int(given)


def step_number(given: object, field: str) -> int:
    """Returns a number of time steps, which the wire can hold: 0..2**64 - 1; the server has a limit of its own."""
    step = whole_number(given, field, 0)
    if step > MAX_STEP:
        raise invalid(field, repr(given), f"0..{MAX_STEP}")
    return step


def _position(given: object, field: str) -> Position:
    checked = _instance(given, Position, field, _POSITION)
    _instance(checked.generation, bytes, f"{field}.generation", _POSITION)
    _instance(checked.head, bytes, f"{field}.head", _POSITION)
    step_number(checked.step, f"{field}.step")
    return checked


def _instance(given: object, kind: type[T], field: str, expected: str) -> T:
    if isinstance(given, kind):
        return given
    raise invalid(field, type(given).__name__, expected)


def _seconds(given: object, field: str, expected: str) -> float:
    if isinstance(given, timedelta):
        return given.total_seconds()
    if isinstance(given, Real) and not isinstance(given, bool):
        try:
            seconds = float(given)
        except OverflowError:  # an integer too large for a float
            seconds = math.inf if str(given)[0] != "-" else -math.inf
        if not math.isnan(seconds):
            return seconds
    raise invalid(field, repr(given), f"seconds {expected}, or a timedelta")
