"""One setting: its group, its default, its bounds, and how it parses a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, field
from enum import Enum
from typing import Any

from cellkeeper_service.errors import StartError

MOST = 2**31 - 1
"""The most that a setting may be, unless it says otherwise: gRPC, and fields of the wire, hold no larger numbers."""
MOST_BYTES = 2**63 - 1
SHOWN = 40  # characters of a word that is refused
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Group(Enum):
    """The headings of --help, in order."""

    SERVING = "serving"
    STORE = "store"
    LIMITS = "limits of requests and messages"
    SECURITY = "security and tenants"
    LIFECYCLE = "lifecycle"
    LOGS = "logs and traces"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    help: its text in --help. least, most: the bounds of a whole number; most_means: explains `most` in errors. choices:
    the allowed words, whatever their case; empty: any word, which the code that uses the setting checks. protects: an
    empty word is refused, which an unset variable of a script leaves: the server would start without that protection.
    """

    group: Group
    help: str
    least: int = 1
    most: int = MOST
    most_means: str = ""
    choices: Sequence[str] = ()
    protects: bool = False

    def read(self, name: str, word: str, kind: type) -> Any:
        """Parses a word. name: the flag or variable that it comes from. kind: str, int or bool. Raises StartError."""
        if kind is bool:
            return self._flag(name, word)
        if kind is int:
            return self._number(name, word)
        if self.protects and not word:
            raise StartError(f"{name}: got nothing, expected a file; leave {name} out if there is none")
        if self.choices and word.lower() not in self.choices:
            raise StartError(f"{name}: got {word!r}, expected {_either(self.choices)}")
        return word.lower() if self.choices else word

    def _flag(self, name: str, word: str) -> bool:
        if word.lower() not in (*TRUE, *FALSE):
            raise StartError(f"{name}: got {word!r}, expected true or false")
        return word.lower() in TRUE

    def _number(self, name: str, word: str) -> int:
        shown = repr(word) if len(word) <= SHOWN else f"{word[:SHOWN]!r}..."
        number = whole_number(word, self.most)
        if number is None or number < self.least:
            raise StartError(f"{name}: got {shown}, expected a whole number of {self.least} or more")
        if number > self.most:
            raise StartError(f"{name}: got {shown}, expected at most {self.most}{self.most_means}")
        return number


def whole_number(word: str, most: int) -> int | None:
    """Returns the number that the word's ASCII digits mean, or some number above `most`; None for any other word."""
    if not (word.isascii() and word.isdecimal()):
        return None
    digits = word.lstrip("0") or "0"
    return int(digits) if len(digits) <= len(str(most)) else most + 1  # Python converts no more than 4300 digits


def setting(group: Group, default: Any, help: str, **more: Any) -> Any:
    """Returns a dataclass field for a setting. more: further arguments of `Setting`."""
    return field(default=default, metadata={"setting": Setting(group, help, **more)})


def setting_of(item: Field[Any]) -> Setting:
    """Returns the Setting of a field made by `setting`."""
    found: Setting = item.metadata["setting"]
    return found


def _either(choices: Sequence[str]) -> str:
    *first, last = choices
    return f"{', '.join(first)} or {last}" if first else last
