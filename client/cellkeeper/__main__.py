"""The program `cellkeeper`: streams files through a session, administers sessions, carries them over, shows models.

Exit codes: 0 success, 1 failure (one line on stderr says why), 2 wrong usage. A signal that ends the program is its
status, as if it had no handler: 130 in a shell for Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import takewhile

from ._transport.settings import DEFAULT_TARGET
from .cli import access, carry_over, doctor, model, sessions, stream
from .cli.ending import Interrupted, end_by
from .cli.terminal import Parser, end_stdout, open_streams, printable
from .client import Client
from .errors import CellkeeperError

ENDPOINT_VARIABLE = "CELLKEEPER_ENDPOINT"


def connection_options() -> argparse.ArgumentParser:
    """Returns a parser of the options that every command but doctor has."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--endpoint",
        default=os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_TARGET,
        help=f"host:port, or several, separated by commas (default: ${ENDPOINT_VARIABLE}, or {DEFAULT_TARGET})",
    )
    shared.add_argument(
        "--timeout", type=float, default=30.0, help="seconds for each call, including retries (default: %(default)g)"
    )
    shared.add_argument(
        "--connect-timeout",
        type=float,
        default=0.8,
        metavar="SECONDS",
        help="how long to keep trying a server that refuses the connection (default: %(default)s); raise it to wait "
        "for one that is starting",
    )
    access.add(shared)
    return shared


def client_parser() -> argparse.ArgumentParser:
    """Returns the command line parser of `cellkeeper`."""
    shared = connection_options()
    parser = Parser(prog="cellkeeper", description="The client of a Cellkeeper server.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('cellkeeper')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    stream.add(commands, shared)
    sessions.add(commands, shared)
    carry_over.add(commands, shared)
    model.add(commands, shared)
    doctor.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program. Returns its exit code, unless a signal ends it."""
    open_streams()
    try:
        return _run(arguments)
    except (KeyboardInterrupt, Interrupted) as interrupt:
        with suppress(OSError):  # the reader of stderr has gone, or its disk is full
            print("cellkeeper: interrupted", file=sys.stderr)
        end_stdout()
        return end_by(interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT)


def _run(arguments: Sequence[str] | None) -> int:
    parser = client_parser()
    words = sys.argv[1:] if arguments is None else arguments
    option = words[0].partition("=")[0] if words else ""
    if option.startswith("--") and not any(known.startswith(option) for known in ("--help", "--version")):
        parser.error(f"{option}: options follow the command, as in: cellkeeper sessions list {option} ...")
    for word in takewhile(lambda word: word != "--", words):
        if word.startswith("--") and word.endswith("=--"):  # argparse would make an empty list of it, not a word
            parser.error(f"argument {word[:-3]}: got '--', expected a value")
    try:
        parsed, unknown = parser.parse_known_args(words)
        if unknown:
            hint = parsed.hint(unknown) if "hint" in parsed else ""
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        if parsed.command == "doctor":
            return doctor.run(parsed)
        targets = [target.strip() for target in parsed.endpoint.split(",") if target.strip()]
        credentials = access.client_access(parsed)
        with Client(targets, timeout=parsed.timeout, connect_timeout=parsed.connect_timeout, **credentials) as client:
            parsed.run(client, parsed)
            sys.stdout.flush()
    except (CellkeeperError, OSError, ValueError) as error:
        if not isinstance(error, BrokenPipeError):  # then the reader of our output has gone
            print(f"cellkeeper: {_one_line(error)}", file=sys.stderr)
        end_stdout()
        return 1
    return 0


def _one_line(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))
    if isinstance(error, CellkeeperError):
        text = f"{type(error).__name__}: {text}"
        if error.position is not None:
            text += f" (the session is at step {error.position.step})"
        if error.reason == "UNAUTHENTICATED":
            text += f"; --token-file FILE or ${access.TOKEN_VARIABLE} gives it"
    return text


if __name__ == "__main__":
    sys.exit(main())
