"""Runs the program to check its output and exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testing.forked_program import run_forked

END_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Ended:
    """The program's exit status, stdout and stderr."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The only line on stderr, without the program's name. Raises AssertionError if there is any other output."""
        lines = self.err.splitlines()
        name, text = "cellkeeper-server: ", "".join(lines)
        if len(lines) != 1 or not text.startswith(name) or self.status != 1 or self.out:
            raise AssertionError(f"expected status 1 and one line on stderr, got {self}")
        return text.removeprefix(name)


def serve(*words: object, variables: Mapping[str, str] | None = None) -> Ended:
    """Runs `cellkeeper-server serve` to its end, on free ports unless the words say otherwise."""
    ports = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    return program("serve", *ports, *words, variables=variables)


def program(*words: object, variables: Mapping[str, str] | None = None) -> Ended:
    """Runs `cellkeeper-server` to its end. With variables, in an interpreter of its own, which may read them, too."""
    if variables is None:
        forked = run_forked("cellkeeper-server", list(map(str, words)), environment(), END_TIMEOUT_S)
        return Ended(forked.status, forked.out, forked.err)
    done = subprocess.run(
        command(*words), env=environment(variables), capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def command(*words: object) -> Sequence[str]:
    return [sys.executable, "-m", "cellkeeper_service", *map(str, words)]


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns this process's environment, with only the given settings of the server."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CELLKEEPER_")}
    return {**own, **(variables or {})}
