"""What a caller gives beside inputs: seconds, session ids, generations. Anything else than what is expected is an
InvalidArgument that names the field."""

from __future__ import annotations

import math
from datetime import timedelta
from numbers import Real

from ..errors import InvalidArgument

MAX_TIMEOUT_SECONDS = 30 * 86_400.0
"""The wire counts milliseconds in 32 bits, which is 49.7 days; a longer wait is as good as this one."""
MAX_TTL_MS = 2**63 - 1
MAX_ID_BYTES = 256


def timeout_seconds(given: object, default: float, field: str = "timeout") -> float:
    """Seconds above 0, or a timedelta; None: `default`. No more than MAX_TIMEOUT_SECONDS."""
    if type(given) is float and 0.0 < given <= MAX_TIMEOUT_SECONDS:  # the usual case
        return given
    if given is None:
        return default
    seconds = _seconds(given, field, "above 0")
    if not seconds > 0:
        raise InvalidArgument(f"{field}: got {given!r}, expected seconds above 0", field=field)
    return min(seconds, MAX_TIMEOUT_SECONDS)


def ttl_milliseconds(given: object) -> int | None:
    """Of seconds, 0 ("never forgotten") or at least 0.001, or of a timedelta; None stays None."""
    if given is None:
        return None
    seconds = _seconds(given, "ttl", "from 0.001, or 0 for never")
    if seconds != 0 and not 0.001 <= seconds <= MAX_TTL_MS / 1000:
        raise InvalidArgument(f"ttl: got {given!r}, expected seconds from 0.001, or 0 for never", field="ttl")
    return min(round(seconds * 1000), MAX_TTL_MS)


def session_id(given: object, field: str = "session") -> str:
    """A text of 1..256 bytes of UTF-8."""
    text = id_text(given, field)
    size = len(text.encode())
    if not 1 <= size <= MAX_ID_BYTES:
        raise InvalidArgument(f"{field}: got {size} bytes of UTF-8, expected 1..{MAX_ID_BYTES}", field=field)
    return text


def id_text(given: object, field: str) -> str:
    """A text that UTF-8 can encode; it may be empty."""
    if not isinstance(given, str):
        hint = "" if given is None else f"; str({field}) makes one"
        raise InvalidArgument(f"{field}: got {type(given).__name__} {given!r}, expected a str{hint}", field=field)
    try:
        given.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{field}: got {given!r}, expected text without lone surrogates", field=field) from None
    return given


def generation_bytes(given: object) -> bytes:
    """As a Position has it."""
    if not isinstance(given, bytes):
        raise InvalidArgument(
            f"generation: got {type(given).__name__}, expected bytes, as in a Position", field="generation"
        )
    return given


def _seconds(given: object, field: str, expected: str) -> float:
    if isinstance(given, timedelta):
        return given.total_seconds()
    if isinstance(given, Real) and not isinstance(given, bool):
        try:
            seconds = float(given)
        except OverflowError:  # an integer beyond all floats
            seconds = math.inf if str(given)[0] != "-" else -math.inf
        if not math.isnan(seconds):
            return seconds
    raise InvalidArgument(f"{field}: got {given!r}, expected seconds {expected}, or a timedelta", field=field)
