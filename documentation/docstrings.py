"""How the site shows docstrings.

The names of arguments and fields are bold where they are explained. Methods of the blocking client have the parameters
and the texts of the asyncio client's, as they do when the package is imported.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from griffe import Attribute, Class, Expr, ExprCall, Extension, Function, Module, Object

_EXPLAINED = re.compile(r"(?:(?<=^)|(?<=[.:;] )|(?<=\n))(\w+(?:, \w+)*): ")


class ArgumentNames(Extension):
    """Registered in mkdocs.yml."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Called by griffe for every function that it has read."""
        _mark(func, {parameter.name for parameter in func.parameters})

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Called by griffe for every class that it has read, with its members."""
        _mark(cls, {*cls.members, *(parameter.name for parameter in cls.parameters)})

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Called by griffe for every package that it has read, once with everything in it."""
        for module in pkg.modules.values():
            for cls in module.classes.values():
                if not cls.is_alias:
                    _derive(cls)


def _derive(cls: Class) -> None:
    """Completes the methods that `blocking` makes, and those that `declared_as` decorates."""
    for name, member in list(cls.members.items()):
        if isinstance(member, Attribute):
            found = [_argument(member.value, "blocking")]
        elif isinstance(member, Function):
            found = [_argument(decorator.value, "declared_as") for decorator in member.decorators]
        else:
            continue
        for path in filter(None, found):
            owner, _, method = path.rpartition(".")
            _derive(cls.modules_collection[owner])  # it may be such a method itself
            source = cls.modules_collection[owner].all_members[method]
            if isinstance(member, Attribute):
                member = Function(name, lineno=member.lineno, returns=source.returns)
                cls.set_member(name, member)
            member.parameters, member.docstring = source.parameters, source.docstring
    _mark(cls, {parameter.name for parameter in cls.parameters})  # of __init__, which may be one of them


def _argument(value: Expr | str | None, called: str) -> str:
    """Returns the full name of the argument of a call of that function; empty for anything else."""
    if not isinstance(value, ExprCall) or value.canonical_path.rpartition(".")[2] != called:
        return ""
    argument = value.arguments[0]
    return argument.canonical_path if isinstance(argument, Expr) else ""


def marked(text: str, names: Collection[str]) -> str:
    """The docstring with those of `names` bold that begin an explanation, as in "timeout: seconds"."""

    def bold(found: re.Match[str]) -> str:
        words = found[1].split(", ")
        return f"**{found[1]}**: " if set(words) <= set(names) else found[0]

    return _EXPLAINED.sub(bold, text)


def _mark(read: Object, names: Collection[str]) -> None:
    if read.docstring is not None:
        read.docstring.value = marked(read.docstring.value, names)
