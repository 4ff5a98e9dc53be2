"""docs/reference/commands.md: every command and option of both programs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from cellkeeper.__main__ import client_parser
from cellkeeper_service.access.command import token_parser
from cellkeeper_service.converters.command import import_parser

from .markdown import code, table

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
    return "\n".join([INTRODUCTION, *(_section(parser) for root in parsers for parser in leaves(root))])


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of the commands that can be run; argparse has no public way to list them."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield parser
    for action in inner:
        for command in action.choices.values():
            yield from leaves(command)


def _section(parser: argparse.ArgumentParser) -> str:
    actions = [action for action in parser._actions if action.help is not argparse.SUPPRESS and action.dest != "help"]
    places = [_placeholder(action) for action in actions if not action.option_strings]
    required = [_option(action) for action in actions if action.option_strings and action.required]
    usage = " ".join([parser.prog, *places, *required])
    rows = [(code(_option(action)), _help(action, parser.prog)) for action in actions]
    text = f"{parser.description}\n\n" if parser.description else ""
    return f"## {parser.prog}\n\n    {usage}\n\n{text}{table(('argument', 'meaning'), rows)}"


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
