"""What the tests' forks of the programs promise: a process of its own, imports that are done, and no variable that is
silently not read."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

import pytest

from testing.forked_program import IMPORTED, ForkedProcess, run_forked
from testing.forked_server import ForkedServer

LOADED = "[*__import__('sys').modules]"
WORDS = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--store", "memory:"]


def test_a_fork_finds_its_imports_done() -> None:
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        loaded = pool.apply(eval, (LOADED,))
    assert set(IMPORTED) <= set(loaded)


def test_a_fork_has_grpc_as_a_server_has_it() -> None:
    """gRPC reads the variable when it is imported: the program of the server must have set it before."""
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        value, loaded = pool.apply(os.getenv, ("GRPC_EXPERIMENTS",)), pool.apply(eval, (LOADED,))
    assert value not in (None, "-event_engine_client")  # the client's
    assert loaded.index("cellkeeper_service.program") < loaded.index("grpc")


def test_a_variable_that_python_reads_is_refused(monkeypatch: pytest.MonkeyPatch, counting_model: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    refused = pytest.raises(ValueError, match=r"PYTHONPATH: got '/elsewhere', .* in an interpreter of its own")
    with refused, ForkedServer([counting_model], "memory:"):
        pass
    with pytest.raises(ValueError, match="PYTHONPATH"):
        run_forked("cellkeeper", ["--version"], os.environ, 60)


def test_a_server_in_a_fork_is_a_process_of_its_own(counting_model: Path) -> None:
    server = ForkedProcess("cellkeeper-server", ["serve", str(counting_model), *WORDS], os.environ)
    with server.stdout:
        assert any(line.startswith("listening on ") for line in server.stdout)
        assert server.pid != os.getpid()
        assert server.poll() is None
        server.send_signal(signal.SIGSTOP)
        server.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(0.05)
        server.kill()
        assert server.wait(30) == server.poll() == -signal.SIGKILL
        server.kill()  # it has ended: nothing happens


def test_what_stops_it_and_its_output(counting_model: Path) -> None:
    with ForkedServer([counting_model], "memory:") as server:
        first = server.pid
        assert server.stop() == 0
        server.restart()
        assert server.pid != first
        server.send_signal(signal.SIGINT)
        server.wait_for("stopping: finishing")
        assert server.stop() == 0
        assert server.output().count("stopped\n") == 2
