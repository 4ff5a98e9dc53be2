"""Runs the programs in forks of a process that has imported them.

Imports take most of the time of a program that ends soon, and of a server's start. A test of how the program starts
needs an interpreter of its own instead.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

# The server first: gRPC, which either imports, reads the server's variable then, as in a server of its own.
PROGRAMS = {"cellkeeper-server": "cellkeeper_service.program", "cellkeeper": "cellkeeper.__main__"}
# What a server imports later, except onnxruntime: that starts a thread, and threads do not survive a fork.
_LATER = [
    "cellkeeper_service.server.app",
    "cellkeeper_service.server.listening",
    "cellkeeper_service.server.workers",
    "cellkeeper_service.engine.graph",
    "cellkeeper_service.engine.half_precision",
    "cellkeeper_service.engine.inputs",
    "cellkeeper_service.engine.numerics",
    "cellkeeper_service.rpc.http.front",
    "cellkeeper_service.store.redis.store",
    "encodings.idna",
    "numpy.ma",  # by numpy.median
    "numpy.random",
    "onnx.reference",
    "uvloop",
]
IMPORTED = (*PROGRAMS.values(), *_LATER)
"""The modules that a fork finds imported; multiprocessing is silent about one that cannot be imported."""


def _read_by_python(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith("PYTHON")}


_PYTHON = _read_by_python(os.environ)

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(list(IMPORTED))


@dataclass(frozen=True)
class Ended:
    """The program's exit status, stdout and stderr."""

    status: int
    out: str
    err: str


class ForkedProcess:
    """A running program, with those methods of subprocess.Popen that a server's process needs.

    program: a key of PROGRAMS. It runs in the current folder. variables: its whole environment; raises ValueError if
    Python itself would read it differently. stdout: what it prints, on stderr, too.
    """

    def __init__(self, program: str, words: Sequence[str], variables: Mapping[str, str]) -> None:
        _check(variables)
        reader, writer = _forks.Pipe(duplex=False)
        with reader, writer:
            self.stdout = os.fdopen(os.dup(reader.fileno()))
            given = (program, list(words), dict(variables), os.getcwd(), writer)
            self._process = _forks.Process(target=_into_pipe, args=given, daemon=True)
            self._process.start()
        self.pid = self._process.pid or 0
        self._command = [program, *words]
        self._ended = threading.Event()
        threading.Thread(target=self._join, daemon=True).start()

    def poll(self) -> int | None:
        """Returns the exit status, of a signal its number negated; None if the program runs."""
        return self._process.exitcode if self._ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit status, as `poll`. Raises subprocess.TimeoutExpired."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(self._command, timeout or 0.0)
        return self._process.exitcode or 0

    def send_signal(self, number: int) -> None:
        """Sends a signal; nothing if the program has ended."""
        if not self._ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _join(self) -> None:
        self._process.join()  # only here: multiprocessing does not expect several threads to wait for one process
        self._ended.set()


def run_forked(
    program: str, words: Sequence[str], variables: Mapping[str, str], timeout_s: float, text: str = ""
) -> Ended:
    """Runs a program in the current folder. Raises TimeoutError if it does not end in time.

    program: a key of PROGRAMS. variables: its whole environment; raises ValueError if Python itself would read it
    differently. text: its stdin.
    """
    _check(variables)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").write_text(text)
        process = _forks.Process(target=_with_files, args=(program, list(words), dict(variables), os.getcwd(), folder))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{program} {words} still ran after {timeout_s:g} s: {(folder / 'err').read_text()}")
        ended = Ended(process.exitcode, (folder / "out").read_text(), (folder / "err").read_text())
        process.close()
        return ended


def _check(variables: Mapping[str, str]) -> None:
    for name, _ in _read_by_python(variables).items() ^ _PYTHON.items():
        raise ValueError(
            f"{name}: got {variables.get(name)!r}, expected {_PYTHON.get(name)!r} as when this process began: a fork "
            "does not read it again; start the program in an interpreter of its own"
        )


def _with_files(program: str, words: list[str], variables: dict[str, str], current: str, folder: Path) -> None:
    """Runs a program in this process, its standard streams in files of the folder."""
    for descriptor, file in enumerate(("in", "out", "err")):
        os.dup2(os.open(folder / file, os.O_RDWR | os.O_CREAT), descriptor)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has replaced it
    _main(program, words, variables, current)


def _into_pipe(program: str, words: list[str], variables: dict[str, str], current: str, writer: Connection) -> None:
    """Runs a program in this process. What it prints goes into a pipe; its stdin is empty, as of all such processes."""
    for descriptor in (1, 2):
        os.dup2(writer.fileno(), descriptor)
    writer.close()
    _main(program, words, variables, current)


def _main(program: str, words: list[str], variables: dict[str, str], current: str) -> None:
    """Runs a program in this process, whose streams are its own already."""
    main = importlib.import_module(PROGRAMS[program]).main
    os.chdir(current)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [program, *words]
    sys.exit(main())
