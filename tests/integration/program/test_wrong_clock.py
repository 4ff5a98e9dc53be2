"""A machine whose clock is before 1970: everything is served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cellkeeper import Client

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

# Runs in the server's process before anything else.
CLOCK = """
import time

ahead_ns = -100_000 * 10**9 - time.time_ns()
real_ns = time.time_ns
time.time_ns = lambda: real_ns() + ahead_ns
time.time = lambda: time.time_ns() / 1e9
"""


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'sessions.db'}"
    else:
        with RedisServer() as redis:
            yield redis.url


def test_sessions_are_served_and_found_again(
    store: str, counting_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'clock'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with ServerProcess([counting_model], store) as server:
        for run in range(2):
            with Client(server.target, timeout=10) as client:
                session = client.session("pump")
                assert session.step([1.0])[0] == 3 * run + 1
                assert list(session.stream([[1.0], [1.0]]))[-1][0] == 3 * run + 3
                assert client.session(f"ttl-{run}", ttl=60).step([1.0])[0] == 1
                assert "pump" in {info.session for info in client.sessions()}
            server.kill()
            server.restart()
