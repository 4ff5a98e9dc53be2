"""How the site shows docstrings: the names of arguments and fields are bold where they are explained."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from griffe import Class, Extension, Function, Object

_EXPLAINED = re.compile(r"(?:(?<=^)|(?<=[.:;] )|(?<=\n))(\w+(?:, \w+)*): ")


class ArgumentNames(Extension):
    """Registered in mkdocs.yml."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Called by griffe for every function that it has read."""
        _mark(func, {parameter.name for parameter in func.parameters})

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Called by griffe for every class that it has read, with its members."""
        _mark(cls, {*cls.members, *(parameter.name for parameter in cls.parameters)})


def marked(text: str, names: Collection[str]) -> str:
    """The docstring with those of `names` bold that begin an explanation, as in "timeout: seconds"."""

    def bold(found: re.Match[str]) -> str:
        words = found[1].split(", ")
        return f"**{found[1]}**: " if set(words) <= set(names) else found[0]

    return _EXPLAINED.sub(bold, text)


def _mark(read: Object, names: Collection[str]) -> None:
    if read.docstring is not None:
        read.docstring.value = marked(read.docstring.value, names)
