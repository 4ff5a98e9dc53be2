"""A worker.py process, as the runner sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .load import Load


class ClientProcess:
    """The client of one contender, in a process of its own.

    python: the interpreter that has what it needs. variables: environment variables to add to those of this process.
    """

    def __init__(
        self, contender: str, target: str, python: str = sys.executable, variables: Mapping[str, str] | None = None
    ) -> None:
        self.contender = contender
        command = [python, "-m", "bench.worker", contender, target]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, **(variables or {})},
        )
        self._line()

    @property
    def pid(self) -> int:
        return self._process.pid

    def measure(self, load: Load, seconds: float) -> dict[str, Any]:
        """Returns the figures of load.Measured. Raises RuntimeError if the load failed."""
        self.begin(load, seconds)
        figures = self.end()
        if "error" in figures:
            raise RuntimeError(figures["error"])
        return figures

    def begin(self, load: Load, seconds: float) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the client process has no stdin")
        self._process.stdin.write(json.dumps({"load": load.json(), "seconds": seconds}) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Returns the figures of load.Measured, or {"error": text}."""
        return self._line()

    def close(self) -> None:
        with self._process:  # waits for the process and closes its pipes
            self._process.kill()

    def _line(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"the client process of {self.contender} ended with {self._process.wait()}")
        value: dict[str, Any] = json.loads(line)
        return value
