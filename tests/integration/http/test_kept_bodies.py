"""What a request sent is not kept once it is refused, or its client has gone: not even until a garbage collection."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from cellkeeper_service.core.models import Models, Version
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.rpc.authenticator import Authenticator
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.half_sent import HalfSent
from cellkeeper_service.rpc.http.front import FrontLimits, HttpFront
from cellkeeper_service.rpc.http.guard import Guard
from cellkeeper_service.rpc.http.servicer import About, HttpServicer
from cellkeeper_service.rpc.open_streams import OpenStreams
from cellkeeper_service.rpc.servicer import Servicer
from cellkeeper_service.rpc.unread import Unread

from tests.unit.core.counting_engine import CountingEngine
from tests.unit.core.loop import Server

SIZE = 200_000
TIMES = 5
REQUEST = (
    b"POST /v1/models/m/sessions/a/%b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
PADDING = b" " * SIZE
REFUSED = {
    "no JSON": b"{" + PADDING,
    "no UTF-8": b'{"a": "\xff"}' + PADDING,
    "an unknown field": b'{"inputs": [1], "x": 1}' + PADDING,
    "a key twice": b'{"inputs": [1], "inputs": [1]}' + PADDING,
    "a long text": b'{"inputs": "%b"}' % (b"x" * SIZE),
}
Opener = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Counted(Meter):
    """What the front counts. gone: set once a request has ended without a response."""

    def __init__(self) -> None:
        self.gone = asyncio.Semaphore(0)

    def http_request(self, method: str, route: str, status: int, seconds: float) -> None:
        if status == 499:
            self.gone.release()


class NothingRecent:
    sample_seconds = 3600.0

    def look(self) -> None: ...

    def shown(self) -> dict[str, object]:
        return {}


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
async def connect(counted: Counted) -> AsyncIterator[Opener]:
    """Opens a connection to a front in this process, whose garbage is not collected."""
    core = Server().loop
    core.start()
    wire = WireLimits()
    models = {"m": Models([Version(CountingEngine(), 8, 64)])}
    authenticator = Authenticator(Catalog(models, wire))
    unread = Unread(30_000, 100, 100)
    streams = OpenStreams(authenticator, counted, unread, HalfSent(1 << 20, 1 << 20))
    servicer = Servicer(authenticator, core, counted, unread, streams)
    about = About("1", "memory", False, {}, NothingRecent(), time.monotonic())
    limits = FrontLimits(2 * SIZE, 100, 30_000)
    front = HttpFront(
        HttpServicer(servicer, about), models, wire, limits, Guard("localhost", checks_host=True), counted
    )
    port = await front.start("127.0.0.1", 0, share_port=False)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield lambda: asyncio.open_connection("127.0.0.1", port)
    finally:
        tracemalloc.stop()
        gc.enable()
        await front.stop()
        await core.drain()
        core.store_calls.close()


async def kept_bytes(connect: Opener, ask: Callable[[], Awaitable[None]]) -> float:
    """Returns how much each call of `ask` leaves behind, after the first one."""
    await ask()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(TIMES):
        await ask()
    return (tracemalloc.get_traced_memory()[0] - before) / TIMES


@pytest.mark.parametrize("body", REFUSED.values(), ids=list(REFUSED))
async def test_a_refused_body(connect: Opener, body: bytes) -> None:
    kept = []  # the connections stay open

    async def ask() -> None:
        reader, writer = await connect()
        writer.write(REQUEST % (b"step", len(body)) + body)
        assert (await reader.readline()).split()[1] == b"400"
        kept.append((await reader.readuntil(b"}}}"), reader, writer))

    try:
        assert await kept_bytes(connect, ask) < SIZE / 2
    finally:
        for _, _, writer in kept:
            writer.close()


async def test_a_body_whose_client_has_gone(connect: Opener, counted: Counted) -> None:
    async def ask() -> None:
        _, writer = await connect()
        writer.write(REQUEST % (b"step", 2 * SIZE) + PADDING)
        await writer.drain()
        writer.close()
        await counted.gone.acquire()

    assert await kept_bytes(connect, ask) < SIZE / 2
