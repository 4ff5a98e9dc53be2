"""What the commands read and print: standard streams, even if they are closed, text from elsewhere, and progress."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import TextIOWrapper
from itertools import islice
from typing import Any

from ..errors import CellkeeperError

SHOWN_FAILURES = 20
SHOWN_EVERY_SECONDS = 0.2


def open_streams() -> None:
    """Opens those of stdin, stdout and stderr that were closed when the program was started. Call it first.

    Otherwise a connection to the server would get the number of a closed one, and what gRPC writes to its stderr would
    be sent to the server. Using stdin or stdout fails, as with any program, and stderr is discarded. Characters that
    the encoding of stdout lacks are written as escapes.
    """
    for name, flags, mode in (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            # os.open returns the lowest number that is free, which is that of the closed one
            setattr(sys, name, open(os.open(os.devnull, flags), mode))  # noqa: SIM115 - open as long as the program
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def end_stdout() -> None:
    """Drops what stdout does not take: Python would try to write it again as it ends, and exit with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: object) -> str:
    """Escapes unprintable characters: a session's id must not end a line, or send commands to the terminal."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)


def print_table(rows: Iterable[tuple[str, object]]) -> None:
    """Prints names and values."""
    for name, value in rows:
        print(f"{name:<15} {printable(value)}")


def print_failures(failures: Mapping[str, CellkeeperError]) -> None:
    """Prints the first errors, which are those of sessions by id, to stderr."""
    for session, error in islice(failures.items(), SHOWN_FAILURES):
        print(printable(f"{session}: {error}"), file=sys.stderr)


def columns(*cells: object) -> str:
    """Returns the cells as one line, separated by tabs."""
    return "\t".join(map(printable, cells))


class Parser(argparse.ArgumentParser):
    """A parser whose --help and --version raise OSError if stdout does not take their text: argparse ignores that, and
    exits with 0."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            print(message, end="", file=file, flush=True)
        else:
            with suppress(OSError):  # as argparse does after Python 3.10, so that the exit code says what was wrong
                super()._print_message(message, file)


class Progress:
    """The progress of a long command: a line on stderr that is rewritten in place, if that is a terminal.

    what: the things that are counted, such as "rows".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = sys.stderr.isatty()
        self._count = 0
        self._started = self._next = time.monotonic()

    def at(self, count: int) -> None:
        """Shows that `count` are done."""
        self._count = count
        if self._shown and time.monotonic() >= self._next:
            self._show("")
            self._next = time.monotonic() + SHOWN_EVERY_SECONDS

    def end(self) -> None:
        """Shows the last count and ends the line."""
        if self._shown:
            self._show("\n")

    def _show(self, end: str) -> None:
        rate = self._count / max(1e-9, time.monotonic() - self._started)
        print(f"\r{self._count} {self._what}, {rate:.0f} a second ", end=end, file=sys.stderr, flush=True)
