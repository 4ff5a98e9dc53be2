"""JSON text: read strictly, so that nothing is ambiguous, and written so that every reader accepts it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from cellkeeper_service.errors import invalid
from cellkeeper_service.nesting import TOO_DEEP, is_too_deep

SAFE_INTEGER = 2**53
"""Up to this value, all JSON readers agree on integers; many round larger ones to the nearest double."""

MAX_NESTED = 65_536
"""Limit on lists and objects in one text: an empty one takes only 2 bytes, and 350,000 of them hold the event loop for
60 ms on an idle core."""


class _Unreadable(ValueError):
    """The reason for a refusal. got, expected: as in `invalid`."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(got)
        self.got, self.expected = got, expected


def read_json(data: bytes, field: str = "body") -> Any:
    """Returns the value. Raises a Rejection for anything that is not strict JSON in UTF-8.

    Also refused are repeated keys, a bare NaN or Infinity, and more than MAX_NESTED lists and objects, or nested deeper
    than nesting.MAX_DEPTH.
    """
    nested = data.count(b"[") + data.count(b"{")  # counts those in strings too, which only a parser could tell apart
    if nested > MAX_NESTED:
        raise invalid(field, f"{nested} of the characters [ and {{", f"at most {MAX_NESTED}; send shorter chunks")
    if is_too_deep(data):
        raise invalid(field, TOO_DEEP, "JSON of fewer levels")
    try:
        return _DECODER.decode(data.decode())
    except UnicodeDecodeError as error:
        raise invalid(field, f"a byte that is not UTF-8 at {error.start}", "JSON in UTF-8") from None
    except json.JSONDecodeError as error:
        raise invalid(field, f"text that is not JSON: {error.msg} at character {error.pos}", "JSON") from None
    except _Unreadable as error:
        raise invalid(field, error.got, error.expected) from None
    except ValueError:  # an integer with thousands of digits
        raise invalid(field, "a number with too many digits", "numbers that float64 or int64 can hold") from None


def write_json(value: Any) -> bytes:
    """Returns UTF-8. Raises ValueError for non-finite floats, which arrays.py writes as strings."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def integer(value: int) -> int | str:
    """Returns an integer for JSON: a string of digits above 2^53."""
    return value if -SAFE_INTEGER <= value <= SAFE_INTEGER else str(value)


def shown(value: Any) -> str:
    """Describes a request's value in a refusal: its type, or the value itself if it is short."""
    match value:
        case dict():
            return "an object"
        case list():
            return f"a list of {len(value)}"
        case None | bool():
            return json.dumps(value)
        case str():
            return repr(value) if len(value) <= 64 else f"a string of {len(value)} characters"
        case _:
            return str(value) if not isinstance(value, int) or abs(value) < 10**64 else "a number with too many digits"


def _no_constant(name: str) -> NoReturn:
    raise _Unreadable(f"the bare word {name}", f'the string "{name}": JSON has no such number')


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Unreadable(f"the key {shown(key)} twice in one object", "each key once")
            seen.add(key)
    return found


_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_each_key_once)
