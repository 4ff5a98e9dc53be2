"""A server of several processes, as the harness drives it.

The tests cover how one of them or their parent is killed, and what is known of their output.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.server_process import WORKER_KILLED

from .deployment import OPTIONS, Server


@pytest.fixture
def server(counting_model: Path, tmp_path: Path) -> Iterator[Server]:
    server = Server([counting_model], f"sqlite:{tmp_path / 'sessions.db'}", OPTIONS, workers=2)
    with server:
        yield server


def runs(pid: int) -> bool:
    """Returns True if the process has not ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_killing_one_worker_ends_all_and_a_restart_serves_on_the_same_port(server: Server) -> None:
    port, pids = server.port, server.serving_pids
    assert len(pids) == 2
    assert server.kill_worker(1) == WORKER_KILLED
    assert not any(map(runs, pids))
    assert not server.is_running
    assert server.pids_if_running == []
    assert server.comes_back() == ""
    assert server.port == port
    assert len(set(server.pids_if_running) - set(pids)) == 2
    assert server.stop() == 0
    assert server.output().count("stopped") == 3, "what it printed in every run"


def test_killing_the_parent_ends_its_workers(server: Server) -> None:
    pids = server.serving_pids
    server.kill()
    assert not any(map(runs, pids))
    assert server.comes_back() == ""
    assert server.metric("cellkeeper_hot_sessions", model="count") == 0


def test_a_start_that_is_refused_says_why_in_words_of_its_own(server: Server) -> None:
    server.kill_worker(0)
    server.store = "memory:"
    why = server.comes_back()
    assert "workers: got several with --store memory:" in why
    assert "listening on" not in why, "that is of an earlier run"
    assert not server.is_running


def test_a_server_of_one_process_serves_itself(counting_model: Path, tmp_path: Path) -> None:
    server = Server([counting_model], f"sqlite:{tmp_path / 'sessions.db'}", OPTIONS)
    with server:
        assert server.serving_pids == [server.pid]
        server.kill()
        assert server.comes_back() == ""
        server.kill()
        assert server.output().count("listening on") == 2
