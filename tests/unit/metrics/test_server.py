"""The metrics' HTTP port, and probes that hang up before the end of an answer."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from cellkeeper_service.metrics.server import MetricsServer

ASK = b"GET /readyz HTTP/1.0\r\n\r\n"


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    made = MetricsServer(lambda: b"x" * 10_000_000, "127.0.0.1", 0, lambda: "", lambda: "")
    yield made
    made.close()


def test_an_answer_comes_in_one_piece(server: MetricsServer) -> None:
    """HAProxy hangs up once it has read the status, so anything sent later would not arrive."""
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(ASK)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"ready\n")


def test_a_probe_that_hangs_up_is_not_logged(server: MetricsServer, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        with socket.create_connection((server.host, server.port)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            connection.recv(16)
            # closes with a reset while most of the answer is in flight
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # the handlers of these three started before this one's
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(ASK)
        assert connection.recv(65536).endswith(b"ready\n")
    assert "Traceback" not in capfd.readouterr().err
