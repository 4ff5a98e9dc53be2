"""Pings on idle connections: a client that answers stays connected, and one that has vanished does not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testing.forked_server import ForkedServer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
PING, GOAWAY, ACKNOWLEDGED = 6, 7, 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, counting_model: Path) -> Iterator[ForkedServer]:
    with ForkedServer([counting_model], "memory:", ["--ping-ms", "400"]) as server:
        yield server


@contextmanager
def frames(server: ForkedServer) -> Iterator[tuple[socket.socket, Iterator[tuple[int, int, bytes]]]]:
    """Opens a connection, and yields it and the frames that the server sends on it: type, flags, payload."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(PREFACE)
        with connection.makefile("rb") as received:

            def read() -> Iterator[tuple[int, int, bytes]]:
                while len(head := received.read(9)) == 9:
                    yield head[3], head[4], received.read(int.from_bytes(head[:3], "big"))

            yield connection, read()


def test_who_answers_stays_connected(server: ForkedServer) -> None:
    pings = 0
    with frames(server) as (connection, read):
        for kind, flags, payload in read:
            assert kind != GOAWAY
            if kind == PING and not flags:
                connection.sendall(b"\0\0\x08" + bytes([PING, ACKNOWLEDGED]) + bytes(4) + payload)
                pings += 1
                if pings == 5:  # two more than gRPC sends on its own while there is no data
                    return
    raise AssertionError(f"the connection ended after {pings} pings")


def test_who_does_not_answer_is_disconnected(server: ForkedServer) -> None:
    with frames(server) as (_, read):
        kinds = [kind for kind, flags, _ in read if not flags]  # until the connection ends
    assert PING in kinds
