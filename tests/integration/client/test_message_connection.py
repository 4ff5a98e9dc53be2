"""A connection that passes on whole messages as they arrive: in order, once, and never more than the socket takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from cellkeeper._transport.message_connection import MessageConnection
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

MEBIBYTE = 1 << 20
Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def connected(handler: Handler) -> AsyncIterator[MessageConnection]:
    async with serve(handler, "127.0.0.1", 0, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}"
        async with connect(url, create_connection=MessageConnection, compression=None, proxy=None) as connection:
            assert isinstance(connection, MessageConnection)
            yield connection


async def delivered(connection: MessageConnection) -> list[tuple[bytes, bool]]:
    """Returns all messages, and whether they were text, until the server closes the connection."""
    taken: list[tuple[bytes, bool]] = []
    with pytest.raises(ConnectionClosed):
        await connection.deliver(lambda message, is_text: taken.append((message, is_text)))
    return taken


async def test_messages_in_parts_keep_their_place() -> None:
    """A proxy may split a message; the next, whole one may arrive together with its last part."""

    async def send(socket: ServerConnection) -> None:
        await socket.send([b"a", b"b", b"c"])
        await socket.send(b"d")
        await socket.send(["e", "f"])
        await socket.send("")
        await socket.send(b"")

    async with connected(send) as connection:
        taken = await delivered(connection)
    assert taken == [(b"abc", False), (b"d", False), (b"ef", True), (b"", True), (b"", False)]


async def test_what_arrives_before_anybody_reads_comes_first() -> None:
    async def send(socket: ServerConnection) -> None:
        for number in range(100):  # more than the library's own queue accepts
            await socket.send(b"%d" % number)

    async with connected(send) as connection:
        await connection.wait_closed()
        taken = await delivered(connection)
    assert taken == [(b"%d" % number, False) for number in range(100)]


async def test_an_error_of_the_reader_is_raised_to_the_reader_and_ends_the_connection() -> None:
    ended = asyncio.Event()

    async def send(socket: ServerConnection) -> None:
        await socket.send(b"good")
        await socket.send(b"bad")
        await socket.send(b"after")
        await socket.wait_closed()
        ended.set()

    taken: list[bytes] = []

    def take(message: bytes, is_text: bool) -> None:
        taken.append(message)
        if message == b"bad":
            raise LookupError("no such thing")

    async with connected(send) as connection:
        with pytest.raises(LookupError, match="no such thing"):
            await connection.deliver(take)
        await asyncio.wait_for(ended.wait(), 10)
    assert taken == [b"good", b"bad"]


async def test_writes_wait_for_a_server_that_does_not_read() -> None:
    """At most two messages are buffered: one that the socket did not accept whole, and the one that waits for it."""
    reads = asyncio.Event()
    arrived: list[int] = []
    buffered: list[int] = []

    async def slow(socket: ServerConnection) -> None:
        await reads.wait()
        arrived.extend([len(message) async for message in socket])

    async with connected(slow) as connection:
        for _ in range(40):
            await connection.write(bytes(MEBIBYTE))
            buffered.append(connection.transport.get_write_buffer_size())
            if buffered[-1]:
                reads.set()  # from here on, the next write waits until there is room
        await connection.close()
    assert arrived == [MEBIBYTE] * 40
    assert max(buffered) < 2 * MEBIBYTE


async def test_a_write_to_a_closed_connection_says_so() -> None:
    async def leave(socket: ServerConnection) -> None:
        await socket.close(1001, "going")

    async with connected(leave) as connection:
        await connection.wait_closed()
        with pytest.raises(ConnectionClosed, match="going"):
            await connection.write(b"late")
