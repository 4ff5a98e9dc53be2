"""What clients do wrong below gRPC's calls reaches no log: gRPC would write it there as often as they do it, and with
their own bytes."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from testing.server_process import ServerProcess
from tests.integration.access.certificates import Authority

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ANSWERED = b"answered"  # the content of a ping, which comes back
FORGED = b'\n{"level": "error", "message": "forged"}'


def frame(kind: int, body: bytes) -> bytes:
    """Returns an HTTP/2 frame of the connection."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, 0]) + bytes(4) + body


def connection(server: ServerProcess) -> socket.socket:
    host, _, port = server.target.rpartition(":")
    return socket.create_connection((host, int(port)), 30)


def test_a_client_cannot_write_a_line_of_the_log(counting_model: Path) -> None:
    with ServerProcess([counting_model], "memory:") as server:
        with connection(server) as client:
            goaway = frame(GOAWAY, struct.pack(">II", 0, 2) + FORGED)
            client.sendall(PREFACE + frame(SETTINGS, b"") + goaway + frame(PING, ANSWERED))
            got = b""
            while ANSWERED not in got:
                got += (more := client.recv(1000))
                assert more, got
        assert server.stop() == 0
        assert "forged" not in server.output()


def test_a_failed_handshake_is_not_logged(counting_model: Path, tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("localhost")
    with ServerProcess([counting_model], "memory:", [f"--tls-cert={cert}", f"--tls-key={key}"]) as server:
        with connection(server) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while client.recv(1000):
                pass
        assert server.stop() == 0
        assert "ssl" not in server.output().lower()
