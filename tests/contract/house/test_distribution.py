"""How `make test` distributes the tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testing.distribution import LONG, TOGETHER

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("scope", sorted({*LONG, *TOGETHER}))
def test_each_long_module_exists(scope: str) -> None:
    assert (ROOT / scope).exists(), f"testing/distribution.py: {scope}: no such module; name what took its place"


def test_a_worker_that_dies_fails_the_run(tmp_path: Path) -> None:
    """pytest-xdist would otherwise replace it, and then wait for ever."""
    found = re.search(r"^PARALLEL = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    options = found[1].replace("$(TEST_WORKERS)", "2").split()
    for number in range(5):
        (tmp_path / f"test_{number}.py").write_text("def test_one(): ...\ndef test_other(): ...\n")
    (tmp_path / "test_2.py").write_text("import os\ndef test_one(): os._exit(1)\ndef test_other(): ...\n")
    command = [sys.executable, "-m", "pytest", *options, "-p", "no:randomly", "-c", os.devnull, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "crashed while running 'test_2.py::test_one'" in ran.stdout
