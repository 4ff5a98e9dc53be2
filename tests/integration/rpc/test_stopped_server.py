"""Calls that outlive their gRPC server, such as a stream whose client leaves while the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from cellkeeper_service.rpc.unread import Unread

METHOD = "/test.Service/Stream"


@pytest.mark.parametrize("messages_before", [0, 1])
async def test_a_read_after_the_server_has_stopped_is_a_cancelled_call(messages_before: int) -> None:
    """It is not a failure of this server, which would log a traceback for one."""
    waits, stopped = asyncio.Event(), asyncio.Event()
    read: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    unread = Unread(timeout_ms=10_000, most=10, most_slow=10)

    async def outlive() -> None:
        waits.set()
        with suppress(asyncio.CancelledError):  # gRPC's, when it ends the call
            await stopped.wait()
        await stopped.wait()

    async def stream(_: Any, context: Any) -> AsyncIterator[bytes]:
        messages = unread.messages(context, lambda: None)
        if messages_before:
            await anext(messages)
        await outlive()
        try:
            await anext(messages)
        except (asyncio.CancelledError, grpc.aio.BaseError) as error:
            read.set_result(error)
        yield b""

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", {"Stream": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    async with channel:
        call = channel.stream_stream(METHOD)()
        for _ in range(messages_before):
            await call.write(b"message")
        await asyncio.wait_for(waits.wait(), 10)
        await server.stop(None)
        stopped.set()
        error = await asyncio.wait_for(read, 10)
        assert isinstance(error, asyncio.CancelledError), repr(error)
        assert "Server already stopped" in str(error)
