"""Calls that outlive their gRPC server, such as a stream whose client leaves while the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from cellkeeper_service.rpc.call_context import CallContext
from cellkeeper_service.rpc.listener import Listener
from cellkeeper_service.rpc.method import Method
from cellkeeper_service.rpc.unread import Unread

METHOD = "/test.Service/Stream"


@pytest.mark.parametrize("messages_before", [0, 1])
async def test_a_read_after_the_server_has_stopped_finds_no_more_messages(messages_before: int) -> None:
    """It is not a failure of this server, which would log a traceback for one."""
    waits = asyncio.Event()
    messages_after: list[Any] = []
    unread = Unread(timeout_ms=10_000, most=10, most_slow=10)

    async def stream(call: CallContext) -> AsyncIterator[list[bytes]]:
        messages = unread.messages(call, lambda: None)
        if messages_before:
            await anext(messages)
        waits.set()
        with suppress(asyncio.CancelledError):  # the call's, when the server ends it
            await asyncio.Event().wait()
        messages_after.extend([message async for message in messages])
        yield [b""]

    listener = Listener({METHOD: Method(stream, bytes, bytes, streams=True)}, (), 10)
    port = listener.listen("127.0.0.1:0", None)
    listener.start()
    channel: Any = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    async with channel:
        call = channel.stream_stream(METHOD)()
        for _ in range(messages_before):
            await call.write(b"message")
        await asyncio.wait_for(waits.wait(), 10)
        await asyncio.wait_for(listener.stop(0), 10)
        await asyncio.wait_for(listener.close(), 10)
    assert messages_after == []
