"""The threads that the program has before it does anything."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

VARIABLE = "OPENBLAS_NUM_THREADS"
SHOWN = f"print(os.environ.get({VARIABLE!r}), len(os.listdir('/proc/self/task')))"


def printed(imported: str, **variables: str) -> list[str]:
    """Returns the variable's value and the number of threads of a process that has imported the module and NumPy."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
    code = f"import {imported}, numpy, os; {SHOWN}"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    return ran.stdout.split()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the system does not list threads")
def test_numpy_starts_no_threads_in_the_server() -> None:
    assert printed("cellkeeper_service.program") == ["1", "1"]


def test_the_variable_may_say_otherwise() -> None:
    assert printed("cellkeeper_service.program", **{VARIABLE: "2"})[0] == "2"


def test_a_program_that_imports_the_service_decides_for_itself() -> None:
    assert printed("cellkeeper_service.server.app")[0] == "None"
