"""Runs the program `cellkeeper` at a terminal of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing


def at_a_terminal(arguments: Sequence[str], answer: str = "") -> tuple[int, str, str]:
    """Runs the program at a terminal, except for its stdout. Returns its status, its stdout and the terminal's text."""
    ours, its = pty.openpty()
    with closing(os.fdopen(ours, "rb+", buffering=0)) as terminal:
        program = [sys.executable, "-m", "cellkeeper", *arguments]
        process = subprocess.Popen(program, stdin=its, stderr=its, stdout=subprocess.PIPE, text=True)
        os.close(its)
        terminal.write(answer.encode())
        out, _ = process.communicate(timeout=60)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # the other end is closed: there is no more
            pass
    return process.returncode, out, shown.decode()
