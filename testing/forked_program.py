"""Runs one of the programs to its end in a fork of a process that has imported it.

Imports take most of the time of a program that ends soon. A test of how the program starts needs an interpreter of its
own instead.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = {"cellkeeper": "cellkeeper.__main__", "cellkeeper-server": "cellkeeper_service.__main__"}

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(list(PROGRAMS.values()))


@dataclass(frozen=True)
class Ended:
    """The program's exit status, stdout and stderr."""

    status: int
    out: str
    err: str


def run_forked(
    program: str, words: Sequence[str], variables: Mapping[str, str], timeout_s: float, text: str = ""
) -> Ended:
    """Runs a program in the current folder. Raises TimeoutError if it does not end in time.

    program: a key of PROGRAMS. variables: its whole environment, of which Python itself reads nothing. text: its stdin.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").write_text(text)
        process = _forks.Process(target=_main, args=(program, list(words), dict(variables), os.getcwd(), folder))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{program} {words} still ran after {timeout_s:g} s: {(folder / 'err').read_text()}")
        ended = Ended(process.exitcode, (folder / "out").read_text(), (folder / "err").read_text())
        process.close()
        return ended


def _main(program: str, words: list[str], variables: dict[str, str], current: str, folder: Path) -> None:
    """Runs a program in this process."""
    main = importlib.import_module(PROGRAMS[program]).main
    for descriptor, file in enumerate(("in", "out", "err")):
        os.dup2(os.open(folder / file, os.O_RDWR | os.O_CREAT), descriptor)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has replaced it
    os.chdir(current)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [program, *words]
    sys.exit(main())
