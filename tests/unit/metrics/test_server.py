"""The metrics' HTTP port, and probes that hang up before the end of an answer."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from urllib.request import urlopen

import pytest
from cellkeeper_service.metrics.server import MOST_CONNECTIONS, MetricsServer

PATIENCE_S = 10.0  # an idle connection ends on its own, but not as early
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


def test_head_is_answered_as_get_without_the_body(server: MetricsServer) -> None:
    """Two on one connection: a body would be taken for the beginning of the next answer."""
    connection = HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
    for path, status in (("/readyz", 200), ("/other", 404)):
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
        assert int(answer.headers["Content-Length"]) > 0
    connection.close()


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


def test_a_probe_is_answered_while_others_hold_connections_open(server: MetricsServer) -> None:
    """Half of them have begun a request. Each connection has a thread, so their number has a bound too."""
    with ExitStack() as held:
        for number in range(2 * MOST_CONNECTIONS):
            one = held.enter_context(socket.create_connection((server.host, server.port)))
            one.sendall(b"GET /healthz HT" * (number % 2))
        with urlopen(server.url.replace("metrics", "healthz"), timeout=PATIENCE_S) as answer:
            assert answer.status == 200
        for thread in handling()[:-MOST_CONNECTIONS]:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def test_a_connection_that_is_used_outlasts_idle_ones(server: MetricsServer) -> None:
    with ExitStack() as held:
        used = HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
        held.callback(used.close)
        used.connect()
        first = used.sock
        for _ in range(2 * MOST_CONNECTIONS):
            used.request("GET", "/healthz")
            assert used.getresponse().read() == b"alive\n"
            idle = held.enter_context(socket.create_connection((server.host, server.port)))
            idle.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            assert idle.recv(65536).endswith(b"ready\n")  # it was accepted before the next request
        assert used.sock is first  # it was never connected again


def test_a_burst_of_connections_is_queued(server: MetricsServer) -> None:
    """The kernel drops those that its queue cannot hold, and their clients wait a second before they try again."""
    info = server._server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    assert struct.unpack_from("8B6I", info)[-1] >= MOST_CONNECTIONS  # of a listening socket: its queue's length


def handling() -> list[threading.Thread]:
    """The threads that handle a connection, the oldest first."""
    return [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_no_host_means_all_addresses(address: str) -> None:
    server = MetricsServer(lambda: b"", "", 0, lambda: "", lambda: "")
    try:
        assert server.url == f"http://0.0.0.0:{server.port}/metrics"
        with socket.create_connection((address, server.port)) as connection:
            connection.sendall(ASK)
            assert connection.recv(65536).endswith(b"ready\n")
    finally:
        server.close()
