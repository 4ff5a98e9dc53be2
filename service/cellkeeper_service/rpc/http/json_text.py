"""JSON text: read strictly, so that nothing of it has two meanings, and written so that every reader takes it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from cellkeeper_service.errors import invalid

SAFE_INTEGER = 2**53
"""Up to here every reader of JSON has the same integers; many read a larger one as the nearest double."""

MAX_NESTED = 65_536
"""Lists and objects of one text: an empty one takes 2 bytes of it, and 350,000 of them hold the event loop for 60 ms
on an idle core."""


class _Unreadable(ValueError):
    """got, expected: of the refusal."""

    def __init__(self, got: str, expected: str) -> None:
        super().__init__(got)
        self.got, self.expected = got, expected


def read_json(data: bytes, field: str = "body") -> Any:
    """The value. Raises a Rejection for what is no JSON in UTF-8, names a key twice, has a bare NaN or Infinity, or has
    more than MAX_NESTED lists and objects."""
    nested = data.count(b"[") + data.count(b"{")  # those within strings too: telling them apart is to parse it
    if nested > MAX_NESTED:
        raise invalid(field, f"{nested} of the characters [ and {{", f"at most {MAX_NESTED}; send shorter chunks")
    try:
        return _DECODER.decode(data.decode())
    except UnicodeDecodeError as error:
        raise invalid(field, f"a byte that is not UTF-8 at {error.start}", "JSON in UTF-8") from None
    except json.JSONDecodeError as error:
        raise invalid(field, f"text that is not JSON: {error.msg} at character {error.pos}", "JSON") from None
    except _Unreadable as error:
        raise invalid(field, error.got, error.expected) from None
    except RecursionError:
        raise invalid(field, "lists or objects within one another, too deep to be read", "JSON") from None
    except ValueError:  # an integer with thousands of digits
        raise invalid(field, "a number with too many digits", "numbers that float64 or int64 can hold") from None


def write_json(value: Any) -> bytes:
    """UTF-8. Raises ValueError for a float that is not finite: arrays.py gives those names."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def integer(value: int) -> int | str:
    """An integer of the protocol as JSON has it: a string of digits above 2^53."""
    return value if -SAFE_INTEGER <= value <= SAFE_INTEGER else str(value)


def shown(value: Any) -> str:
    """A value of a request in a refusal: what kind it is, and the value where it is short."""
    match value:
        case dict():
            return "an object"
        case list():
            return f"a list of {len(value)}"
        case None | bool():
            return json.dumps(value)
        case str():
            return repr(value) if len(value) <= 64 else f"a text of {len(value)} characters"
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
