"""docs/reference/commands.md: every command and option of both programs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from cellkeeper.__main__ import client_parser, connection_options
from cellkeeper_service.access.command import token_parser
from cellkeeper_service.converters.command import import_parser

from .markdown import code, table

CONNECTION = "Connection"
"""The heading of the options that every command of the client but doctor has; their sections link to it."""

INTRODUCTION = """# Commands

`cellkeeper` is installed with the client, `cellkeeper-server` with the extra `server`. Both print their version with
`--version` and their options with `--help`.

## cellkeeper-server serve

`cellkeeper-server serve MODEL... [OPTIONS]` serves the bundles in the folders `MODEL...` until SIGTERM. Its options are
the [server settings](settings.md).
"""


def commands_page() -> str:
    """The page as Markdown. Raises RuntimeError for an argument without a help text."""
    parsers = (import_parser(), token_parser(), client_parser())
    sections = [_section(parser) for root in parsers for parser in leaves(root)]
    shared = f"## {CONNECTION}\n\nThe commands of `cellkeeper` take these options, unless they list their own:\n\n"
    return "\n".join([INTRODUCTION, *sections, shared + _arguments(_rows(connection_options()))])


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of the commands that can be run; argparse has no public way to list them."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield parser
    for action in inner:
        for command in action.choices.values():
            yield from leaves(command)


def _rows(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    return [(_option(action), _help(action, parser.prog)) for action in _actions(parser)]


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help is not argparse.SUPPRESS and action.dest != "help"]


def _arguments(rows: list[tuple[str, str]]) -> str:
    return table(("argument", "meaning"), [(code(option), text) for option, text in rows])


def _section(parser: argparse.ArgumentParser) -> str:
    actions = _actions(parser)
    places = [_placeholder(action) for action in actions if not action.option_strings]
    required = [_option(action) for action in actions if action.option_strings and action.required]
    usage = " ".join([parser.prog, *places, *required])
    rows = _rows(parser)
    text = f"{parser.description}\n\n" if parser.description else ""
    shared = _rows(connection_options())
    if set(shared) <= set(rows):
        text += f"It takes the [options of the connection](#{CONNECTION.lower()}), and:\n\n"
        rows = [row for row in rows if row not in shared]
    return f"## {parser.prog}\n\n    {usage}\n\n{text}{_arguments(rows)}"


def _option(action: argparse.Action) -> str:
    if not action.option_strings:
        return _placeholder(action)
    name = ", ".join(action.option_strings)
    return name if action.nargs == 0 else f"{name} {_placeholder(action)}"


def _placeholder(action: argparse.Action) -> str:
    if action.choices is not None:
        shown = "|".join(map(str, action.choices))
    else:
        shown = str(action.metavar or (action.dest.upper() if action.option_strings else action.dest))
    if action.nargs in ("?", "*"):
        return f"[{shown}{'...' if action.nargs == '*' else ''}]"
    return f"{shown}..." if action.nargs == "+" else shown


def _help(action: argparse.Action, prog: str) -> str:
    if not action.help:
        raise RuntimeError(f"{prog}: {_option(action)} has no help text; add one where it is declared")
    text = action.help % {**vars(action), "prog": prog}
    needed = bool(action.option_strings) and action.required
    return f"{text} (required)".strip() if needed else text
