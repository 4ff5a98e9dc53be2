"""Starts the program for what it prints and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

END_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Ended:
    """How the program ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr, without the program's name. Where nothing was served, there is no other output."""
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
    """Runs `cellkeeper-server` to its end."""
    done = subprocess.run(
        command(*words), env=environment(variables), capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def command(*words: object) -> Sequence[str]:
    return [sys.executable, "-m", "cellkeeper_service", *map(str, words)]


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, without settings of the server's but those given."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CELLKEEPER_")}
    return {**own, **(variables or {})}
