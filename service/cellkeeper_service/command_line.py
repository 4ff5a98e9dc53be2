"""What commands that end by themselves print on stdout: all of it, or an error says why not."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from typing import Any

from cellkeeper_service.errors import StartError


def print_out(text: str) -> None:
    """Writes to stdout. Raises StartError if that does not take it, because its disk is full or its reader has gone."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Python would try to write it again as it ends, and exit with 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StartError(f"stdout: {error.strerror}") from error


class Parser(argparse.ArgumentParser):
    """A parser whose --help raises StartError if stdout does not take it: argparse ignores that, and exits with 0."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            print_out(message)
        else:
            with suppress(OSError):  # as argparse does after Python 3.10, so that the exit code says what was wrong
                super()._print_message(message, file)
