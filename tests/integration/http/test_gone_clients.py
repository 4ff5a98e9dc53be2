"""Clients that vanish before the server has answered are no news: they leave no line of the log, and no connection."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvloop
from aiohttp import web
from cellkeeper_service.rpc.http.connections import Connections

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


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_client_too_many_that_has_gone_leaves_no_traceback(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    told: list[str] = []

    async def refuse() -> None:
        connections = Connections(web.Application(), 1.0, 0, None)
        port = await connections.listen("127.0.0.1", 0, share_port=False)
        for _ in range(20):
            socket.create_connection(("127.0.0.1", port), 20).close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        await connections.stop()

    loop = new_loop()
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    try:
        loop.run_until_complete(refuse())
    finally:
        loop.close()
    gc.collect()  # asyncio reports a task that failed when nobody can ask for its error any more
    assert told == []
