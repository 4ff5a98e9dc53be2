"""The PTX that Triton compiles keeps the kernels' promises. It is emulated, in a process without Triton's interpreter,
for compute capability 9.0; `make check-ptx` runs all of these tests, and in more ways."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .interpreter import INTERPRETED

pytestmark = [
    pytest.mark.skipif(not INTERPRETED, reason="only beside the interpreter"),
    pytest.mark.timeout(900),  # the first compilation takes half a minute of CPU time, which may be shared
]

SUMS = "not 1030"  # a sum of 1030 products takes as long as half of the others
# The layer of large tiles covers the reduced precisions.
CONTRACT = (
    "cells_give_the_values and fp32 or large_tiles or test_a_row_has_the_same_bits_in_any_company or hostile_neighbours"
)


@pytest.mark.parametrize(
    "selected",
    [
        ["tests/unit/kernels/emulated/test_sums.py", "tests/unit/kernels/emulated/test_mutations.py", "-k", SUMS],
        ["tests/unit/kernels/test_contract.py", "-k", CONTRACT],
    ],
    ids=["emulated", "contract"],
)
def test_the_compiled_kernels_keep_their_promises(compiling: dict[str, str], selected: list[str]) -> None:
    options = ["-q", "-n0", "-p", "no:cacheprovider", "-p", "no:randomly", "--no-header"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *selected],
        env=compiling | {"EMULATE_PTX": "90,once,late", "PYTEST_ADDOPTS": ""},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
