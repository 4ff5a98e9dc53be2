"""A server with several processes, as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from urllib.request import urlopen

from .launch import command, environment


def scraped(url: str) -> dict[str, float]:
    with urlopen(url, timeout=10) as answer:
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


class Workers:
    """A server with several processes, and its output."""

    def __init__(self, *words: object, count: int = 2, variables: dict[str, str] | None = None) -> None:
        ports = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
        self.process = subprocess.Popen(
            command("serve", *ports, f"--workers={count}", *words),
            env=environment(variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._count = count

    @property
    def targets(self) -> set[str]:
        return {line.split()[-1] for line in self.lines if line.startswith("listening on ")}

    @property
    def metrics(self) -> list[str]:
        """The metrics' URL of each worker."""
        return [line.split()[-1] for line in self.lines if line.startswith("metrics on ")]

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def wait_until_serving(self) -> None:
        for _ in range(self._count):
            self.read_until("metrics on ")

    def read_until(self, start: str) -> None:
        """Reads up to the next line that starts like this."""
        before = len(self.lines)
        while not any(line.startswith(start) for line in self.lines[before:]):
            self.read_line()

    def read_line(self) -> None:
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            raise RuntimeError(f"it has ended: {self.lines}")
        self.lines.append(line.rstrip())

    def end(self) -> int:
        """Returns the exit status after it has ended on its own; the rest of its output is in `lines`."""
        if self.process.stdout is not None:
            self.lines += self.process.stdout.read().splitlines()
        return self.process.wait()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            for pid in self.pids:
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
