"""A server whose device fails: what it refuses, what survives, and how the process ends."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cellkeeper import CellkeeperError, Client
from cellkeeper_service.engine.cuda import engine as engine_module
from cellkeeper_service.engine.cuda.engine import CudaEngine
from cellkeeper_service.engine.load import offline
from cellkeeper_service.model.bundle import read_bundle

from testing.bundles import Array, make_bundle

from .double import FailingDevice, TorchKernelCells

SESSIONS = ("a", "b", "c")
STEPS = 60
NEVER = -1


def program(uses: int | str, bundle: Path, *words: str) -> list[str]:
    own = [sys.executable, "-m", "tests.unit.cuda.failing_server", str(uses)]
    listen = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    return [*own, "serve", str(bundle), *listen, "--device=cuda:0", "--max-batch=4", *words]


@contextmanager
def serving(bundle: Path, store: Path, uses: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Runs a server on a device that fails after `uses` uses. Yields its address and process."""
    words = program(uses, bundle, "--store", f"sqlite:{store}")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            if server.stdout is None:
                raise RuntimeError("its output goes elsewhere")
            found = next(filter(None, (re.search(r"listening on (\S+)", line) for line in server.stdout)))
            yield found[1], server
        finally:
            server.kill()


def steps_until_refused(target: str, inputs: Array, done: dict[str, list[Array]]) -> CellkeeperError | None:
    """Steps the sessions in turn, each from its position, until an error. Adds the outputs to `done`."""
    with Client(target, timeout=2.0) as client:
        sessions = {name: client.session(name) for name in SESSIONS}
        try:
            while any(len(outputs) < STEPS for outputs in done.values()):
                for number, (name, outputs) in enumerate(done.items()):
                    if len(outputs) < STEPS:
                        outputs.append(sessions[name].step(inputs[len(outputs), number]))
        except CellkeeperError as error:
            return error
    return None


def test_a_device_that_fails_ends_the_server_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, store = make_bundle(tmp_path / "m", name="m"), tmp_path / "store.db"
    inputs = np.random.default_rng(3).standard_normal((STEPS, len(SESSIONS), 3)).astype(np.float32)
    done: dict[str, list[Array]] = {name: [] for name in SESSIONS}
    with serving(bundle, store, 90) as (target, server):
        error = steps_until_refused(target, inputs, done)
        assert server.wait(30) == 1
        printed = server.stdout.read() if server.stdout else ""
    assert error is not None
    assert "cuda:0 a device of tests failed: CUDA error" in str(error)
    assert printed.splitlines()[-1] == (
        "cellkeeper-server: cuda:0 a device of tests failed: CUDA error: unspecified launch failure"
    )
    assert "Traceback" not in printed
    taken = {name: len(outputs) for name, outputs in done.items()}
    assert 0 < sum(taken.values()) < STEPS * len(SESSIONS)
    with serving(bundle, store, NEVER) as (target, _):
        with Client(target) as client:
            assert {name: client.session_info(name).position.step for name in SESSIONS} == taken
        assert steps_until_refused(target, inputs, done) is None
    monkeypatch.setattr(engine_module, "KernelCells", TorchKernelCells)
    engine = CudaEngine(read_bundle(bundle), 4, FailingDevice())
    for number, outputs in enumerate(done.values()):
        np.testing.assert_array_equal(np.array(outputs), offline(engine, inputs[:, number])["prediction"])


def test_a_device_that_fails_while_a_model_is_loaded_ends_the_start_with_one_line(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "m", name="m")
    done = subprocess.run(
        program("start", bundle, "--store=memory:"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert re.fullmatch(r"cellkeeper-server: .*cuda:0 a device of tests failed: CUDA error: .*\n", done.stderr)
