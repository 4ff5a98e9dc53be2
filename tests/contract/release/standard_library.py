"""`python standard_library.py FILES`: prints what the files use that this Python lacks, one line for each use.

It checks the syntax, and each module, attribute and subscripted class of the standard library that is evaluated when
the code runs: not annotations, not what only type checkers import, and nothing below a condition on the version. It
imports nothing but the standard library itself, so any Python runs it without an environment.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def lacks(source: str) -> list[tuple[int, str]]:
    """Returns the line numbers and uses of what this Python lacks, in order."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [(error.lineno or 0, error.msg)]
    names: dict[str, Any] = {}
    found: list[tuple[int, str]] = []
    nodes = list(evaluated(tree))
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found += bind(node, names)
    for node in nodes:
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            try:
                use(node, names)
            except (AttributeError, TypeError) as error:
                found.append((node.lineno, f"{ast.unparse(node)}: {error}"))
    return sorted(set(found))


def evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes below this one that are evaluated in every version of Python, in the order of the source."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.If) and {"TYPE_CHECKING", "version_info"} & words(child.test):
                continue
            if isinstance(child, ast.AST):
                yield child
                yield from evaluated(child)


def words(node: ast.AST) -> set[str]:
    """Returns the names and attributes in an expression."""
    return {getattr(part, "id", "") or getattr(part, "attr", "") for part in ast.walk(node)}


def bind(node: ast.Import | ast.ImportFrom, names: dict[str, Any]) -> list[tuple[int, str]]:
    """Adds what an import of the standard library binds to the names; returns what this Python lacks."""
    found: list[tuple[int, str]] = []
    for alias in node.names:
        module = alias.name if isinstance(node, ast.Import) else node.module or ""
        if getattr(node, "level", 0) or module.partition(".")[0] not in KNOWN:
            continue
        try:
            value = importlib.import_module(module)
            if isinstance(node, ast.ImportFrom):
                value = getattr(value, alias.name)
            elif not alias.asname:
                value = sys.modules[module.partition(".")[0]]
        except (ImportError, AttributeError) as error:
            found.append((node.lineno, f"{ast.unparse(node)}: {error}"))
            continue
        names[alias.asname or alias.name.partition(".")[0]] = value
    return found


def use(node: ast.expr, names: dict[str, Any]) -> Any:
    """Returns what the expression is in the standard library: a module, a class, or what they have; None if it is
    something else. Raises AttributeError or TypeError if this Python lacks it."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = use(node.value, names)
        return getattr(owner, node.attr) if isinstance(owner, type(ast)) else None
    if isinstance(node, ast.Subscript):
        owner = use(node.value, names)
        if isinstance(owner, type) and not (hasattr(owner, "__class_getitem__") or hasattr(type(owner), "__getitem__")):
            raise TypeError("cannot be subscripted")
    return None


KNOWN = set(sys.stdlib_module_names) | {"tomllib", "annotationlib", "compression", "concurrent"}
"""Names of modules of the standard library: this Python's, and those that later ones added."""


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        for line, text in lacks(path.read_text(encoding="utf-8")):
            print(f"{path}:{line}: {text}")
