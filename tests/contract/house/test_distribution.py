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


LATE = """
import threading
from xdist.workermanage import Marker, WorkerController

receive, send = WorkerController.process_from_remote, WorkerController.sendcommand
dead, tried = threading.Event(), threading.Event()

def late(worker, event):
    if event is Marker.END and not worker.shutting_down:
        worker.gateway._io.popen.wait()
        dead.set()
        tried.wait(30)
    receive(worker, event)

def given(worker, name, **arguments):
    if hasattr(worker, "dies"):
        dead.wait(30)
    if 4 in arguments.get("indices", ()):
        worker.dies = True
    try:
        send(worker, name, **arguments)
    finally:
        if dead.is_set():
            tried.set()

WorkerController.process_from_remote, WorkerController.sendcommand = late, given
"""
"""Has xdist send its next message to a worker once the worker has died, and notice that only afterwards."""


@pytest.mark.parametrize("plugin", ["", LATE], ids=["noticed", "unnoticed"])
def test_a_worker_that_dies_fails_the_run(tmp_path: Path, plugin: str) -> None:
    """pytest-xdist would otherwise replace it, and then wait for ever. The test that it died of is named."""
    found = re.search(r"^PARALLEL = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    options = found[1].replace("$(TEST_WORKERS)", "2").split()
    for number in range(10):
        (tmp_path / f"test_{number}.py").write_text("def test_one(): ...\ndef test_other(): ...\n")
    (tmp_path / "test_2.py").write_text("import os\ndef test_one(): os._exit(1)\ndef test_other(): ...\n")
    (tmp_path / "plugin.py").write_text(plugin)
    options += ["-p", "plugin", "-p", "xdist.plugin", "-c", os.devnull]
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command, environment = [sys.executable, "-m", "pytest", *options, str(tmp_path)], {**os.environ, **paths}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "crashed while running 'test_2.py::test_one'" in ran.stdout
