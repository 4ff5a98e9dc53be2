"""docs/reference/settings.md: every setting of the server."""

from __future__ import annotations

from dataclasses import Field
from typing import Any

from cellkeeper_service.server.config import CLIENT_VARIABLES, flag_of, setting_fields, variable_of
from cellkeeper_service.server.setting import Group, setting_of

from .markdown import code, table

INTRODUCTION = """# Server settings

`cellkeeper-server serve MODEL...` takes each setting as a flag or as an environment variable; a flag wins. A variable
`CELLKEEPER_*` that is not listed here stops the start, except for those of the client: {}.

A flag without a value is turned off by its `--no-` form; its variable takes `true` or `false`. `--help` prints this.
"""


def settings_page() -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION.format(", ".join(code(name) for name in sorted(CLIENT_VARIABLES)))]
    for group in Group:
        rows = [_row(item) for item in setting_fields() if setting_of(item).group is group]
        head = ("flag", "variable", "default", "values", "meaning")
        parts.append(f"## {group.value.capitalize()}\n\n{table(head, rows)}")
    return "\n".join(parts)


def _row(item: Field[Any]) -> tuple[str, ...]:
    default = str(item.default).lower() if isinstance(item.default, bool) else item.default
    return code(flag_of(item)), code(variable_of(item)), code(default), _values(item), setting_of(item).help


def _values(item: Field[Any]) -> str:
    about = setting_of(item)
    if isinstance(item.default, bool):
        return "`true`, `false`"
    if isinstance(item.default, int):
        return f"{about.least} to {about.most}{about.most_means}"
    return ", ".join(code(choice) for choice in about.choices) or "text"
