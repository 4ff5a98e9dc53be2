"""A server of the tests keeps its port while it does not run: nobody else gets it, and the server can start again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

Server: TypeAlias = "RedisServer | ForkedServer"


@pytest.fixture(params=["redis", "one process", "workers"])
def server(request: pytest.FixtureRequest, counting_model: Path, tmp_path: Path) -> Iterator[Server]:
    workers = 2 if request.param == "workers" else 1
    with ExitStack() as running:
        if request.param == "redis":
            yield running.enter_context(RedisServer())
        else:
            served = ForkedServer([counting_model], f"sqlite:{tmp_path / 's.db'}", workers=workers, http=True)
            yield running.enter_context(served)


def test_a_port_is_kept_between_two_runs(server: Server) -> None:
    port = server.port
    for _ in range(2):
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        server.restart()
        socket.create_connection(("127.0.0.1", port)).close()
    assert server.port == port


def test_a_node_of_a_cluster_has_a_second_port_of_its_own() -> None:
    options = {"cluster-enabled": "yes"}
    with RedisServer(options) as one, RedisServer(options) as other:
        ports = [int(port) for node in (one, other) for port in (node.port, node.options["cluster-port"])]
        assert len(set(ports)) == 4
        for port in ports:
            socket.create_connection(("127.0.0.1", port)).close()
