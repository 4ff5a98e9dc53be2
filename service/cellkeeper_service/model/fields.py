"""Reads a JSON object strictly, by a schema: callers ask for every key by name, and a key that nobody asks for is
refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard, TypeVar

from cellkeeper_service.errors import StartError

from .config import LARGEST
from .schema import Schema, resolved

_NONE = object()
LONGEST_SHOWN = 80
LONGEST_REASON = 300
Read = TypeVar("Read")


class Fields:
    """The keys of one object of config.json. Each error names the key, what came and what was expected.

    schema: of the object, with the limits, choices and defaults of its keys. default, in each call: for a key whose
    default the schema does not have.
    """

    def __init__(self, value: object, place: str, schema: Schema) -> None:
        self._place = place
        if not isinstance(value, dict):
            raise StartError(f"{place}: got {_shown(value)}, expected an object")
        self._left: dict[str, object] = dict(value)
        self._schema = schema

    def refuse(self, key: str, came: object, expected: str) -> StartError:
        return StartError(f"{self._place}: {key}: got {_shown(came)}, expected {expected}")

    def place(self, key: str) -> str:
        return f"{self._place}: {key}"

    def has(self, key: str) -> bool:
        return key in self._left

    def any(self, key: str, expected: str, default: object = _NONE) -> Any:
        if key in self._left:
            return self._left.pop(key)
        if default is _NONE and key not in self._schema["required"]:
            default = self._schema["properties"].get(key, {}).get("default", _NONE)
        if default is _NONE:
            raise StartError(f"{self._place}: {key}: missing, expected {expected}")
        return default

    def variant(self, key: str) -> str:
        """Reads the choice that says which kind of object this is, and goes on with the schema of that kind."""
        kind = self.choice(key)
        chosen = next(one for one in self._schema["allOf"] if one["if"]["properties"][key]["const"] == kind)
        self._schema = resolved(chosen["then"])
        return kind

    def integer(self, key: str, most: int | None = None) -> int:
        """Reads a whole number. most: another limit than the schema's, if it depends on other keys."""
        low, high = self._key(key)["minimum"], self._key(key)["maximum"] if most is None else most
        expected = f"a whole number from {low} to {high}"
        value = self.any(key, expected)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(key, value, expected)
        return value

    def flag(self, key: str) -> bool:
        value = self.any(key, "true or false")
        if not isinstance(value, bool):
            raise self.refuse(key, value, "true or false")
        return value

    def text(self, key: str, default: object = _NONE, *, printable: bool = True) -> str:
        """Reads a string. printable: refuse unprintable characters, because names appear in logs, metrics and errors,
        where a line break would forge a line. False if the caller checks every character itself."""
        longest = self._key(key)["maxLength"]
        expected = f"a string of 1 to {longest} {'printable ' if printable else ''}characters"
        value = self.any(key, expected, default)
        if not isinstance(value, str) or not 1 <= len(value) <= longest or (printable and not value.isprintable()):
            raise self.refuse(key, value, expected)
        return value

    def choice(self, key: str) -> str:
        choices = self._key(key)["enum"]
        expected = "one of " + ", ".join(choices)
        value = self.any(key, expected)
        if not isinstance(value, str) or value not in choices:
            raise self.refuse(key, value, expected)
        return value

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        return self._numbers(key, self.any(key, _list_of(length)), length)

    def number_or_numbers(self, key: str, length: int) -> float | tuple[float, ...]:
        """Reads one number, or a list of `length` numbers."""
        value = self.any(key, f"a finite float32 number, or a list of {length}")
        if isinstance(value, list | tuple):
            return self._numbers(key, value, length)
        if not is_number(value):
            raise self.refuse(key, value, "a finite float32 number")
        return float(value)

    def items(self, key: str) -> list[Any]:
        longest = self._key(key)["maxItems"]
        expected = f"a list of at most {longest} items"
        value = self.any(key, expected)
        if not isinstance(value, list | tuple) or len(value) > longest:
            raise self.refuse(key, value, expected)
        return list(value)

    def nested(self, key: str, read: Callable[[Fields], Read], default: object = _NONE) -> Read:
        """Reads an object by `read`, which asks for each of its keys."""
        schema = resolved(self._key(key))
        return Fields(self.any(key, "an object", default), self.place(key), schema)._whole(read)

    def nested_list(self, key: str, read: Callable[[Fields], Read]) -> tuple[Read, ...]:
        """Reads a list of objects, each by `read`."""
        schema = resolved(self._key(key)["items"])
        items = enumerate(self.items(key))
        return tuple(Fields(item, self.place(f"{key}[{i}]"), schema)._whole(read) for i, item in items)

    def shape(self, key: str) -> tuple[int, ...]:
        most_axes, largest = self._key(key)["maxItems"], self._key(key)["items"]["maximum"]
        expected = f"a list of at most {most_axes} whole numbers from 1 to {largest}"
        value = self.any(key, expected)
        whole = isinstance(value, list | tuple) and len(value) <= most_axes
        if not whole or not all(type(n) is int and 1 <= n <= largest for n in value):
            raise self.refuse(key, value, expected)
        return tuple(value)

    def done(self) -> None:
        """Raises StartError for a key that nobody asked for."""
        if self._left:
            raise StartError(f"{self._place}: {named(next(iter(self._left)))}: unknown key, remove it")

    def _key(self, key: str) -> Schema:
        schema: Schema = self._schema["properties"][key]
        return schema

    def _whole(self, read: Callable[[Fields], Read]) -> Read:
        value = read(self)
        self.done()
        return value

    def _numbers(self, key: str, value: object, length: int) -> tuple[float, ...]:
        if not isinstance(value, list | tuple) or len(value) != length or not all(map(is_number, value)):
            raise self.refuse(key, value, _list_of(length))
        return tuple(map(float, value))


def is_number(value: object) -> TypeGuard[int | float]:
    """Returns True for a number that float32 can hold."""
    # JSON integers may be too large for a float, but comparing them is exact; no comparison with a NaN is true
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def named(name: str) -> str:
    """Returns a name from the bundle in a form that is safe in a line of text."""
    return name if name.isprintable() and 0 < len(name) <= LONGEST_SHOWN else _shown(name)


def one_line(text: str, longest: int = LONGEST_REASON) -> str:
    """Returns another library's message about a file, made safe for one line: it may quote anything in the file."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _list_of(length: int) -> str:
    return f"a list of {length} finite float32 numbers"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."
