"""Clients that vanish before the server has answered are no news: they leave no line of the log, and no connection."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .front import HANDSHAKE, Front, serving

SESSION = "/v1/models/count/sessions/gone"
BODY = b'{"inputs": [1]}'
PINGS = (b"\x89\x80" + bytes(4)) * 500
ASKED = {
    "watch": ("GET", f"{SESSION}/watch", HANDSHAKE),
    "stream": ("GET", f"{SESSION}/stream", HANDSHAKE),
    "frames": ("GET", "/v1/frames", HANDSHAKE),
    "pings": ("GET", f"{SESSION}/stream", HANDSHAKE),
    "pings of frames": ("GET", "/v1/frames", HANDSHAKE),
    "step": ("POST", f"{SESSION}/step", {"Content-Type": "application/json", "Content-Length": str(len(BODY))}),
    "expecting": (
        "POST",
        f"{SESSION}/step",
        {"Content-Type": "application/json", "Content-Length": str(len(BODY)), "Expect": "100-continue"},
    ),
    "expecting in vain": ("GET", "/nowhere", {"Expect": "100-continue"}),
    "file": ("GET", "/console/app.js", {}),
}
TIMES = 100


@pytest.fixture(scope="module")
def front(counting_model: Path) -> Iterator[Front]:
    with serving([counting_model]) as made:
        yield made


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("resets", [False, True], ids=["closes", "resets"])
def test_a_client_that_goes_at_once_leaves_no_traceback(front: Front, asked: str, resets: bool) -> None:
    method, path, headers = ASKED[asked]
    lines = [f"{method} {path} HTTP/1.1", f"Host: {front.place}", *(f"{name}: {headers[name]}" for name in headers)]
    sent = "\r\n".join([*lines, "\r\n"]).encode()
    sent += BODY if method == "POST" else PINGS if asked.startswith("pings") else b""
    place = urlsplit(front.url)
    before = front.server.output().count("Traceback")
    for _ in range(TIMES):
        with socket.create_connection((place.hostname, place.port), 20) as one:
            if resets:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.sendall(sent)
            if not resets:
                one.shutdown(socket.SHUT_WR)
    assert front.ask("GET", "/v1/server").status == 200
    assert front.server.output().count("Traceback") == before
