"""Calls that arrive while the event loop is busy: gRPC has read them, and the loop has not accepted them yet."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.rpc.authenticator import Authenticator
from cellkeeper_service.rpc.call_context import CallContext
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.half_sent import HalfSent
from cellkeeper_service.rpc.listener import Listener
from cellkeeper_service.rpc.method import Method
from cellkeeper_service.rpc.open_streams import OpenStreams
from cellkeeper_service.rpc.server import RpcServer, Transport
from cellkeeper_service.rpc.unread import Unread

from verification.load.hostile import ACK, DATA, END_HEADERS, HEADERS, PING, PREFACE, SETTINGS, frame, headers

SERVICE, METHOD = "test.Pending", "Call"
END_STREAM = 1


def send_calls(connection: socket.socket, count: int) -> None:
    """Sends so many calls. Returns when gRPC has read all of them, which its answer to a ping shows."""
    message = struct.pack(">BI", 0, 0)
    block = headers(f"/{SERVICE}/{METHOD}")
    calls = (
        frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, message)
        for stream in range(1, 2 * count, 2)
    )
    connection.sendall(b"".join([PREFACE, frame(SETTINGS, 0, 0), *calls, frame(PING, 0, 0, bytes(8))]))
    answers = connection.makefile("rb")
    while True:
        head = answers.read(9)
        answers.read(int.from_bytes(head[:3], "big"))
        if head[3] == PING and head[4] & ACK:
            return


@pytest.mark.parametrize(("calls", "max_rpcs"), [(4000, 8000), (2500, 2000)], ids=["many", "the least"])
async def test_calls_that_arrive_while_the_loop_is_busy_are_answered_later(calls: int, max_rpcs: int) -> None:
    """They are more than gRPC keeps by default. Answers take no time, so few calls are in progress at once."""
    answered, all_answered = 0, asyncio.Event()

    async def answer(call: CallContext) -> bytes:
        nonlocal answered
        await call.read()
        answered += 1
        if answered == calls:
            all_answered.set()
        return b""

    streams = OpenStreams(Authenticator(Catalog({}, WireLimits())), Meter(), Unread(1, 1, 1), HalfSent(1, 1))
    transport = Transport(max_message_bytes=1 << 20, max_connections=100, ping_ms=60_000, max_rpcs=max_rpcs)
    methods = {f"/{SERVICE}/{METHOD}": Method(answer, bytes, bytes)}
    server = RpcServer(methods, (), streams, transport)
    port = await server.start("127.0.0.1:0")
    try:
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            send_calls(connection, calls)  # the loop does nothing else meanwhile
            await asyncio.wait_for(all_answered.wait(), 60)
    finally:
        await server.stop(0)


async def test_a_call_that_the_loop_sees_after_the_server_was_stopped_is_refused() -> None:
    """It is neither answered, which could go on for the whole time for closing, nor ignored until that time is over."""
    answered = []

    async def answer(call: CallContext) -> bytes:
        answered.append(True)
        return b""

    listener = Listener({f"/{SERVICE}/{METHOD}": Method(answer, bytes, bytes)}, (), 10)
    port = listener.listen("127.0.0.1:0", None)
    listener.start()
    sent = asyncio.Event()

    async def send_and_stop() -> None:
        send_calls(connection, 1)
        sent.set()
        await listener.stop(60)  # begins before the loop does anything else

    def status() -> bytes:
        came = b""
        while b"grpc-status" not in came and (more := connection.recv(1 << 16)):
            came += more
        return came

    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        stopping = asyncio.create_task(send_and_stop())
        await sent.wait()
        came = await asyncio.to_thread(status)
    await asyncio.wait_for(stopping, 30)
    await listener.close()
    assert b"grpc-status\x0214" in came  # UNAVAILABLE
    assert not answered
