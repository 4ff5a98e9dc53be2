"""The proxy causes the disturbances that it is told to cause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from .proxy import Proxy


class Echo:
    """Answers every line with itself. lines: what arrived."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.arrived = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while line := await reader.readline():
                self.lines.append(line)
                self.arrived.set()
                writer.write(line)
                await writer.drain()
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, Proxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with Proxy(("127.0.0.1", server.sockets[0].getsockname()[1])) as proxy:
        yield echo, proxy
    server.close()


async def ask(proxy: Proxy, line: bytes) -> bytes:
    """Returns the answer on a connection of its own; empty if it was cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(line)
        return await reader.readline()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_fair_weather(echo: tuple[Echo, Proxy]) -> None:
    assert await ask(echo[1], b"a\n") == b"a\n"


async def test_a_dropped_reply_has_been_asked_for(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    proxy.drop_replies = True
    assert await ask(proxy, b"a\n") == b""
    assert server.lines == [b"a\n"]
    proxy.clear()
    assert await ask(proxy, b"b\n") == b"b\n"


async def test_a_black_hole_holds_everything_until_it_is_lifted(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    proxy.black_hole = True
    waiting = asyncio.ensure_future(ask(proxy, b"a\n"))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    assert server.lines == []
    proxy.black_hole = False
    assert await waiting == b"a\n"


async def test_a_held_reply_has_been_asked_for_and_is_given_when_it_is_let_go(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    proxy.hold_replies = True
    waiting = asyncio.ensure_future(ask(proxy, b"a\n"))
    await server.arrived.wait()
    proxy.hold_replies = False
    proxy.hold_replies = True  # before the waiting task has run
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    proxy.hold_replies = False
    assert await waiting == b"a\n"


async def test_a_held_reply_whose_connection_is_cut_is_never_given(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    proxy.hold_replies = True
    waiting = asyncio.ensure_future(ask(proxy, b"a\n"))
    await server.arrived.wait()
    proxy.cut()
    proxy.hold_replies = False
    assert await waiting == b""


async def test_a_cut_ends_what_waits(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"a\n")
    assert await reader.readline() == b"a\n"  # so that there is a connection to cut
    proxy.black_hole = True
    writer.write(b"b\n")
    proxy.cut()
    with suppress(ConnectionError):
        assert await reader.readline() == b""
    writer.close()


async def test_refused_connections(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    proxy.refusing = True
    assert await ask(proxy, b"a\n") == b""
    assert server.lines == []


async def test_a_delay_and_a_throttle(echo: tuple[Echo, Proxy]) -> None:
    _, proxy = echo
    proxy.delay_s = 0.05
    began = time.monotonic()
    assert await ask(proxy, b"a\n") == b"a\n"
    assert time.monotonic() - began >= 0.1  # in each direction
    proxy.clear()
    proxy.bytes_per_s = 1000
    began = time.monotonic()
    assert await ask(proxy, b"x" * 99 + b"\n") == b"x" * 99 + b"\n"
    assert time.monotonic() - began >= 0.2


async def test_a_new_target(echo: tuple[Echo, Proxy]) -> None:
    server, proxy = echo
    proxy.target = ("127.0.0.1", 1)  # nobody listens there
    assert await ask(proxy, b"a\n") == b""
    assert server.lines == []
