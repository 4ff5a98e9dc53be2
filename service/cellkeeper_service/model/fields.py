"""Reads a JSON object strictly: callers ask for every key by name, and a key that nobody asks for is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, TypeVar

import numpy as np

from cellkeeper_service.errors import StartError

_REQUIRED = object()
LONGEST_SHOWN = 80
LONGEST_REASON = 300
MAX_RANK = 8
LARGEST = float(np.finfo(np.float32).max)
Read = TypeVar("Read")


class Fields:
    """The keys of one object of config.json. Each error names the key, what came and what was expected."""

    def __init__(self, value: object, place: str) -> None:
        self._place = place
        if not isinstance(value, dict):
            raise StartError(f"{place}: got {_shown(value)}, expected an object")
        self._left: dict[str, object] = dict(value)

    def refuse(self, key: str, came: object, expected: str) -> StartError:
        return StartError(f"{self._place}: {key}: got {_shown(came)}, expected {expected}")

    def place(self, key: str) -> str:
        return f"{self._place}: {key}"

    def has(self, key: str) -> bool:
        return key in self._left

    def any(self, key: str, expected: str, default: object = _REQUIRED) -> Any:
        if key in self._left:
            return self._left.pop(key)
        if default is _REQUIRED:
            raise StartError(f"{self._place}: {key}: missing, expected {expected}")
        return default

    def integer(self, key: str, low: int, high: int, default: object = _REQUIRED) -> int:
        expected = f"a whole number from {low} to {high}"
        value = self.any(key, expected, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(key, value, expected)
        return value

    def flag(self, key: str, default: object = _REQUIRED) -> bool:
        value = self.any(key, "true or false", default)
        if not isinstance(value, bool):
            raise self.refuse(key, value, "true or false")
        return value

    def text(self, key: str, longest: int = 200, default: object = _REQUIRED, *, printable: bool = True) -> str:
        """Reads a string. printable: refuse unprintable characters, because names appear in logs, metrics and errors,
        where a line break would forge a line. False if the caller checks every character itself."""
        expected = f"a string of 1 to {longest} {'printable ' if printable else ''}characters"
        value = self.any(key, expected, default)
        if not isinstance(value, str) or not 1 <= len(value) <= longest or (printable and not value.isprintable()):
            raise self.refuse(key, value, expected)
        return value

    def choice(self, key: str, choices: Sequence[str], default: object = _REQUIRED) -> str:
        expected = "one of " + ", ".join(choices)
        value = self.any(key, expected, default)
        if not isinstance(value, str) or value not in choices:
            raise self.refuse(key, value, expected)
        return value

    def number(self, key: str, default: object = _REQUIRED) -> float:
        value = self.any(key, "a finite float32 number", default)
        if not is_number(value):
            raise self.refuse(key, value, "a finite float32 number")
        return float(value)

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        expected = f"a list of {length} finite float32 numbers"
        value = self.any(key, expected)
        if not isinstance(value, list | tuple) or len(value) != length or not all(map(is_number, value)):
            raise self.refuse(key, value, expected)
        return tuple(map(float, value))

    def number_or_numbers(self, key: str, length: int, default: object = _REQUIRED) -> float | tuple[float, ...]:
        """Reads one number, or a list of `length` numbers."""
        came = self.any(key, f"a finite float32 number, or a list of {length}", default)
        inner = Fields({key: came}, self._place)
        return inner.numbers(key, length) if isinstance(came, list | tuple) else inner.number(key)

    def items(self, key: str, longest: int, default: object = _REQUIRED) -> list[Any]:
        expected = f"a list of at most {longest} items"
        value = self.any(key, expected, default)
        if not isinstance(value, list | tuple) or len(value) > longest:
            raise self.refuse(key, value, expected)
        return list(value)

    def nested(self, key: str, read: Callable[[Fields], Read], default: object = _REQUIRED) -> Read:
        """Reads an object by `read`, which asks for each of its keys."""
        return Fields(self.any(key, "an object", default), self.place(key))._whole(read)

    def nested_list(
        self, key: str, longest: int, read: Callable[[Fields], Read], default: object = _REQUIRED
    ) -> tuple[Read, ...]:
        """Reads a list of objects, each by `read`."""
        items = enumerate(self.items(key, longest, default))
        return tuple(Fields(item, self.place(f"{key}[{i}]"))._whole(read) for i, item in items)

    def _whole(self, read: Callable[[Fields], Read]) -> Read:
        value = read(self)
        self.done()
        return value

    def shape(self, key: str, largest: int, default: object = _REQUIRED) -> tuple[int, ...]:
        expected = f"a list of at most {MAX_RANK} whole numbers from 1 to {largest}"
        value = self.any(key, expected, default)
        whole = isinstance(value, list | tuple) and len(value) <= MAX_RANK
        if not whole or not all(type(n) is int and 1 <= n <= largest for n in value):
            raise self.refuse(key, value, expected)
        return tuple(value)

    def done(self) -> None:
        """Raises StartError for a key that nobody asked for."""
        if self._left:
            raise StartError(f"{self._place}: {named(next(iter(self._left)))}: unknown key, remove it")


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


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."
