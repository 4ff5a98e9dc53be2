"""One setting: the group it belongs to, its default, its bounds, and how a word is read as its value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, field
from enum import Enum
from typing import Any

from cellkeeper_service.errors import StartError

TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Group(Enum):
    """Headings of --help, in its order."""

    SERVING = "serving"
    STORE = "store"
    LIMITS = "limits of requests and messages"
    SECURITY = "security and tenants"
    LIFECYCLE = "lifecycle"
    LOGS = "logs and traces"


@dataclass(frozen=True, slots=True)
class Setting:
    """help: what --help says of it. least, most: bounds of a whole number; most_means: says what the most is. choices:
    the words that it may be, whatever their case; none: any word, which its user checks."""

    group: Group
    help: str
    least: int = 1
    most: int | None = None
    most_means: str = ""
    choices: Sequence[str] = ()

    def read(self, name: str, word: str, kind: type) -> Any:
        """The word as a value. name: of the flag or variable that it came by. kind: str, int or bool. Raises
        StartError."""
        if kind is bool:
            return self._flag(name, word)
        if kind is int:
            return self._number(name, word)
        if self.choices and word.lower() not in self.choices:
            raise StartError(f"{name}: got {word!r}, expected {_either(self.choices)}")
        return word.lower() if self.choices else word

    def _flag(self, name: str, word: str) -> bool:
        if word.lower() not in (*TRUE, *FALSE):
            raise StartError(f"{name}: got {word!r}, expected true or false")
        return word.lower() in TRUE

    def _number(self, name: str, word: str) -> int:
        if not word.isdecimal() or int(word) < self.least:
            raise StartError(f"{name}: got {word!r}, expected a whole number of {self.least} or more")
        number = int(word)
        if self.most is not None and number > self.most:
            raise StartError(f"{name}: got {word!r}, expected at most {self.most}{self.most_means}")
        return number


def setting(group: Group, default: Any, help: str, **more: Any) -> Any:
    """A field of a dataclass that holds settings. more: of `Setting`."""
    return field(default=default, metadata={"setting": Setting(group, help, **more)})


def setting_of(item: Field[Any]) -> Setting:
    """The one that `setting` made the field for."""
    found: Setting = item.metadata["setting"]
    return found


def _either(choices: Sequence[str]) -> str:
    *first, last = choices
    return f"{', '.join(first)} or {last}" if first else last
