"""How a stream ends that the client ends: it says that no more frames follow, and the server ends the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from cellkeeper import AsyncClient
from cellkeeper._transport.stream_call import GrpcCall

X = [1.0, 2.0]


async def test_closing_waits_until_the_last_write_is_reported(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of gRPC report the two; that of the write may be the later one. The loop may be closed after `close`."""
    ended, reported = asyncio.Event(), asyncio.Event()
    deliver, done_writing = GrpcCall.deliver, GrpcCall.done_writing

    async def delivers(self: GrpcCall, take: Callable[[Any], None]) -> None:
        try:
            await deliver(self, take)
        finally:
            ended.set()

    async def reports_late(self: GrpcCall) -> None:
        await done_writing(self)
        await ended.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        reported.set()

    monkeypatch.setattr(GrpcCall, "deliver", delivers)
    monkeypatch.setattr(GrpcCall, "done_writing", reports_late)
    async with AsyncClient(target) as client:
        await (await client.open("pump")).step(X)
    assert reported.is_set()


async def test_a_stream_that_its_server_does_not_end(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cancelled after the timeout of an attempt, and another one takes its place."""

    async def says_nothing(_: GrpcCall) -> None:
        said.set()

    said = asyncio.Event()
    monkeypatch.setattr(GrpcCall, "done_writing", says_nothing)
    async with AsyncClient(target, attempt_timeout=0.2) as client:
        session = await client.open("pump")
        await session.step(X)
        (endpoint,) = client._connected().endpoints.all
        assert endpoint._stream is not None
        endpoint._stream.finish()
        await asyncio.wait_for(said.wait(), 10)
        assert (await asyncio.wait_for(session.step(X), 10)).tolist()[0] == 2
        assert client.counters.stream_reconnects == 1
