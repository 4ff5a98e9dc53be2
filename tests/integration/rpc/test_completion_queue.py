"""How events of calls come to the event loop, at the moments at which the loop and the thread could miss each other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from queue import SimpleQueue
from threading import Event
from typing import Any

import grpc
import pytest
from cellkeeper_service.rpc import completion_queue, listener
from cellkeeper_service.rpc.call_context import CallContext
from cellkeeper_service.rpc.completion_queue import CompletionQueue
from cellkeeper_service.rpc.grpc_call import GrpcCall
from cellkeeper_service.rpc.listener import Listener
from cellkeeper_service.rpc.method import Method

METHOD = "/test.Service/Call"
PATIENCE_SECONDS = 10


@asynccontextmanager
async def served(method: Method) -> AsyncIterator[grpc.Channel]:
    listening = Listener({METHOD: method}, (), 10)
    port = listening.listen("127.0.0.1:0", None)
    listening.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await asyncio.wait_for(listening.stop(0), PATIENCE_SECONDS)
    await asyncio.wait_for(listening.close(), PATIENCE_SECONDS)


class Passed(deque[Any]):
    """The loop takes the first event when there are two. The thread goes on after the second when a burst begins."""

    def __init__(self) -> None:
        super().__init__()
        self.are_two, self.burst_begins = Event(), Event()

    def append(self, event: Any) -> None:
        super().append(event)
        if len(self) == 2 and not self.are_two.is_set():
            self.are_two.set()
            self.burst_begins.wait(PATIENCE_SECONDS)

    def popleft(self) -> Any:
        self.are_two.wait(PATIENCE_SECONDS)
        return super().popleft()


class Tokens(SimpleQueue[None]):
    def __init__(self) -> None:
        self.is_awaited = Event()

    def get(self, block: bool = True, timeout: float | None = None) -> None:
        self.is_awaited.set()
        return super().get(block, timeout)


class UnluckyQueue(CompletionQueue):
    """Its thread comes to rest at the first event of a burst just before the loop has ended its turn."""

    def __init__(self) -> None:
        super().__init__()
        self._passed = self._two = Passed()
        self._go_on = self._tokens = Tokens()

    @property
    def _in_burst(self) -> bool:
        return self._bursts

    @_in_burst.setter
    def _in_burst(self, starts: bool) -> None:
        self._bursts = starts
        if starts and not self._two.burst_begins.is_set():
            self._two.burst_begins.set()
            self._tokens.is_awaited.wait(PATIENCE_SECONDS)


async def test_a_thread_that_rests_when_the_loop_has_just_looked_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "CompletionQueue", UnluckyQueue)
    monkeypatch.setattr(completion_queue, "TRIED_EVENTS", 2)

    async def answer(call: CallContext) -> bytes:
        return bytes(await call.read())

    async with served(Method(answer, bytes, bytes)) as channel:
        call: Any = channel.unary_unary(METHOD, bytes, bytes)
        answers = [call.future(text, timeout=PATIENCE_SECONDS) for text in (b"a", b"b")]
        assert [await asyncio.to_thread(one.result) for one in answers] == [b"a", b"b"]


async def test_an_event_that_concerns_both_is_handled_once_by_each(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    cancelled = asyncio.Event()

    def count(call: GrpcCall, event: Any) -> bool:
        closed.append(is_done := handle(call, event))
        return is_done

    handle = GrpcCall._closed
    monkeypatch.setattr(GrpcCall, "_closed", count)

    async def wait(call: CallContext) -> None:
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    arrived = asyncio.Event()
    async with served(Method(wait, bytes, bytes, streams=True)) as channel:
        call: Any = channel.stream_stream(METHOD, bytes, bytes)(iter([]))
        await asyncio.wait_for(arrived.wait(), PATIENCE_SECONDS)
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), PATIENCE_SECONDS)
    assert closed == [False]
