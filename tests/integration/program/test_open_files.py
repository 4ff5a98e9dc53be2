"""The limit on open files: what it leaves for connections, and a server whose connections are all taken."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from cellkeeper import Client

from testing.server_process import ServerProcess

from .launch import END_TIMEOUT_S, environment

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
"""What an HTTP/2 client sends first, with empty settings; a server answers with its own."""


def limited(files: int) -> list[str]:
    """Returns the program, with a limit on its open files that it cannot raise."""
    return ["bash", "-c", f'ulimit -n {files} && exec "$@"', "bash", sys.executable, "-m", "cellkeeper_service"]


@contextmanager
def connections(server: ServerProcess, count: int) -> Iterator[int]:
    """Opens connections, and yields how many of them the server serves."""
    with ExitStack() as opened:
        served = 0
        for _ in range(count):
            connection = opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            try:
                connection.sendall(PREFACE)
                served += bool(connection.recv(9))
            except ConnectionError:
                pass
        yield served


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("files", [16, 200])
def test_too_few_open_files_are_refused_in_one_line(
    counting_model: Path, tmp_path: Path, files: int, workers: int
) -> None:
    ports = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", f"--store=sqlite:{tmp_path / 's.db'}"]
    words = [*limited(files), "serve", str(counting_model), *ports, f"--workers={workers}"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"cellkeeper-server: open files: got a limit of {files}, expected at least 224 with these settings; raise it "
        "with ulimit -n, LimitNOFILE= of systemd or --ulimit nofile= of docker\n"
    )


def test_the_soft_limit_is_raised_as_far_as_the_settings_need(counting_model: Path, tmp_path: Path) -> None:
    soft = ["bash", "-c", 'ulimit -S -n 64 && exec "$@"', "bash", sys.executable, "-m", "cellkeeper_service"]
    options = ["--max-connections", "100"]
    with ServerProcess([counting_model], f"sqlite:{tmp_path / 's.db'}", options, program=soft) as server:
        limits = Path(f"/proc/{server.pid}/limits").read_text()
        (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert line.split()[3] == "308"


def test_connections_leave_the_files_that_the_server_needs(counting_model: Path, tmp_path: Path) -> None:
    """Probes are answered, the store is read, and who is connected goes on, however many connect."""
    with ServerProcess([counting_model], f"sqlite:{tmp_path / 's.db'}", program=limited(260)) as server:
        assert "open files: a limit of 260 allows 52 connections, not the 8192 of --max-conn" in server.output()
        with Client(server.target) as client:
            session = client.session("a")
            session.step([1.0])
            with connections(server, 400) as served:
                assert served == 51  # the client's is another
                assert session.step([2.0]).tolist() == [3.0]
                for path in ("healthz", "readyz", "metrics"):
                    with urlopen(server.metrics_url.replace("metrics", path), timeout=30) as answer:
                        assert answer.status == 200
                assert len(os.listdir(f"/proc/{server.pid}/fd")) < 260
        assert "Traceback" not in server.output()


def test_connections_beyond_the_setting_are_closed_until_others_end(counting_model: Path, tmp_path: Path) -> None:
    options = ["--max-connections", "8"]
    with ServerProcess([counting_model], f"sqlite:{tmp_path / 's.db'}", options) as server:
        with connections(server, 64) as served:
            assert served == 8
        with Client(server.target) as client:
            assert client.session("a").step([1.0]).tolist() == [1.0]
