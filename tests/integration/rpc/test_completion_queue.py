"""How the loop and the thread that waits for events share them: in bursts, between them, and when they meet.

A call of a method that does not exist is one event for the loop.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from queue import SimpleQueue
from typing import Any

import pytest
from cellkeeper_service.rpc import completion_queue, grpc_core, listener
from cellkeeper_service.rpc.call_context import EOF
from cellkeeper_service.rpc.completion_queue import CompletionQueue
from cellkeeper_service.rpc.grpc_call import GrpcCall
from cellkeeper_service.rpc.listener import Listener
from cellkeeper_service.rpc.method import Method

from .http2 import Http2, begin, connection, reset, unary

UNARY, STREAM, SLOW, MISSING = "/test.Service/Unary", "/test.Service/Stream", "/test.Service/Slow", "/test.Service/No"
SECONDS = 30.0


async def echo(call: Any) -> bytes:
    data = await call.read()
    return b"" if data is EOF else bytes(data)


async def twice(call: Any) -> AsyncIterator[list[bytes]]:
    while (data := await call.read()) is not EOF:
        yield [data, data]


async def slow(call: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


METHODS = {
    UNARY: Method(echo, bytes, bytes),
    STREAM: Method(twice, bytes, bytes, streams=True),
    SLOW: Method(slow, bytes, bytes),
}


@asynccontextmanager
async def listening(**methods: Method) -> AsyncIterator[tuple[Listener, int]]:
    """Yields a listener and its port. methods: more of them, by the last word of their paths."""
    every = {**METHODS, **{f"/test.Service/{name}": one for name, one in methods.items()}}
    limits = ("grpc.server.max_pending_requests", "grpc.server.max_pending_requests_hard_limit")
    options = [*((name, 100_000) for name in limits), ("grpc.http2.max_ping_strikes", 0)]
    served = Listener(every, options, 100_000)
    port = served.listen("127.0.0.1:0", None)
    served.start()
    try:
        yield served, port
    finally:
        await asyncio.wait_for(served.stop(0), SECONDS)
        await asyncio.wait_for(served.close(), SECONDS)


class Calls:
    """Calls over one connection."""

    def __init__(self, client: Http2) -> None:
        self._client = client
        self._next = 1

    def streams(self, count: int) -> list[int]:
        first, self._next = self._next, self._next + 2 * count
        return list(range(first, self._next, 2))

    async def make(self, count: int, path: str = UNARY) -> None:
        """Makes so many calls at once, and checks their replies."""
        streams = self.streams(count)
        self._client.send(*(unary(stream, path, str(stream).encode()) for stream in streams))
        await self._client.until(lambda: self._client.ended.issuperset(streams))
        for stream in streams:
            data = str(stream).encode()
            reply = b"\0" + len(data).to_bytes(4, "big") + data
            assert self._client.data.pop(stream) == (reply if path == UNARY else reply + reply)
        self._client.ended.clear()

    async def leave(self, count: int, path: str) -> None:
        """Begins so many calls, some of which send a message, and resets each, some of them at once."""
        for _ in range(0, count, 100):
            streams = self.streams(100)
            for stream in streams:
                self._client.send(begin(stream, path) if stream % 4 == 1 else unary(stream, path))
                if stream % 8 < 4:
                    self._client.send(reset(stream))
            await self._client.ping()
            self._client.send(*(reset(stream) for stream in streams if stream % 8 >= 4))
            await self._client.ping()
        self._client.ended.clear()


@pytest.mark.parametrize("path", [UNARY, STREAM])
async def test_bursts_and_single_calls_take_turns(path: str) -> None:
    async with listening() as (_, port), connection(port) as client:
        calls = Calls(client)
        for _ in range(3):
            await calls.make(3000, path)
            for _ in range(200):
                await calls.make(1, path)


async def test_close_ends_a_thread_that_rests() -> None:
    """The loop closes the queue in the middle of a burst."""
    async with listening() as (_, port), connection(port) as client:
        await Calls(client).make(3000)
        client.send(*(unary(stream, MISSING) for stream in range(100_001, 100_201, 2)))
        await client.ping()


def things() -> list[Any]:
    """Returns what the service and gRPC keep for calls."""
    gc.collect()
    ours = ("grpc._cython", "cellkeeper_service")
    return [one for one in gc.get_objects() if str(type(one).__module__).startswith(ours)]


async def test_calls_leave_nothing_behind_even_without_a_garbage_collector() -> None:
    async with listening() as (_, port), connection(port) as client:
        calls = Calls(client)
        await calls.make(200)
        before = len(things())
        gc.disable()
        try:
            await calls.make(3000)
            await calls.make(3000, STREAM)
            for path in (UNARY, STREAM, SLOW, MISSING):
                await calls.leave(1000, path)
            for _ in range(100):
                await calls.make(1)
            left = [one for one in gc.get_objects() if type(one) is GrpcCall]
            assert len(left) <= 1  # of the last call, whose close may come later
        finally:
            gc.enable()
        assert len(things()) - before < 50  # of 11,100 calls; things of earlier tests may end meanwhile


async def test_events_that_the_thread_took_come_before_those_that_the_loop_takes() -> None:
    started: list[str] = []

    def noting(name: str) -> Method:
        async def note(call: Any) -> bytes:
            started.append(name)
            return b""

        return Method(note, bytes, bytes)

    names = ["A", "B", "C"]
    async with listening(**{name: noting(name) for name in names}) as (served, port), connection(port) as client:
        queue = served._queue
        queue._in_burst = True
        await client.ping()
        client.send(unary(1, "/test.Service/A"))
        while not queue._thread_rests:  # the loop does nothing else meanwhile
            pass
        client.send(unary(3, "/test.Service/B"), unary(5, "/test.Service/C"))
        queue.take_more()
        await client.until(lambda: client.ended >= {1, 3, 5})
    assert started == names


async def test_calls_that_have_arrived_when_the_server_stops_are_answered() -> None:
    """gRPC cancels those that it has not handed over. While the thread rests, it would not even read them."""
    answered = 0

    async def count(call: Any) -> bytes:
        nonlocal answered
        answered += 1
        return b""

    async with listening(Count=Method(count, bytes, bytes)) as (served, port), connection(port) as client:
        served._queue._in_burst = True
        await client.ping()
        client.send(unary(1, MISSING))
        while not served._queue._thread_rests:  # the loop does nothing else meanwhile
            pass
        client.send(*(unary(stream, "/test.Service/Count") for stream in range(3, 203, 2)))
        await served.stop(SECONDS)
    assert answered == 100


async def test_an_event_is_handled_once_whoever_takes_it() -> None:
    handled: list[str] = []

    def handle(event: Any) -> bool:
        handled.append("done")
        return False

    async def answer(call: Any) -> bytes:
        data = bytes(await call.read())
        tag: Any = grpc_core.Quiet(handle, lambda event: handled.append("awaited"))
        grpc_core.receive_message(call._call, tag)
        return data

    async with listening(Marked=Method(answer, bytes, bytes)) as (_, port), connection(port) as client:
        await client.ping()
        client.send(unary(1, "/test.Service/Marked"))
        await client.until(lambda: 1 in client.ended)
        client.send(*(unary(stream, "/test.Service/Marked") for stream in range(3, 603, 2)))
        await client.until(lambda: len(client.ended) == 301)
    assert handled.count("done") == handled.count("awaited") == 301


async def test_a_message_waits_for_its_predecessor_and_not_for_an_earlier_one() -> None:
    """The event of the first message comes late to the loop, after the third has started to wait for the one before."""
    started = asyncio.Event()

    async with AsyncExitStack() as stack:

        async def write(call: Any) -> None:
            await call.write(b"1" * 10)
            given_up = asyncio.create_task(call.write(b"x"))
            await asyncio.sleep(0)
            given_up.cancel()
            with suppress(asyncio.CancelledError):
                await given_up
            client.open_window(15, 1)
            while call._is_sending:  # until the thread has its event
                pass
            started.set()
            await call.write(b"2" * 10)
            await call.write(b"3" * 10)

        method = Method(write, bytes, bytes, streams=True)
        _, port = await stack.enter_async_context(listening(Write=method))
        client = await stack.enter_async_context(connection(port, 0))
        client.send(unary(1, "/test.Service/Write"))
        await asyncio.wait_for(started.wait(), SECONDS)
        await client.ping()
        client.open_window(1000, 1)
        await client.until(lambda: 1 in client.ended)
        assert client.data[1] == b"".join(b"\0\0\0\0\x0a" + number * 10 for number in (b"1", b"2", b"3"))


class Passed(deque[Any]):
    """Holds the thread up after it has passed an event, until the loop has looked for events for the last time."""

    def __init__(self, looked: threading.Event) -> None:
        super().__init__()
        self.appended = 0
        self._looked = looked

    def append(self, event: Any) -> None:
        super().append(event)
        self.appended += 1
        if self.appended == completion_queue.TRIED_EVENTS:
            self._looked.wait(SECONDS)


class GoOn(SimpleQueue[None]):
    """rests: whether the thread has started to rest."""

    def __init__(self) -> None:
        self.rests = threading.Event()

    def get(self, block: bool = True, timeout: float | None = None) -> None:
        self.rests.set()
        super().get(block, timeout)


class MeetingQueue(CompletionQueue):
    """Lets the thread begin to rest at the last moment at which the loop still seems to come for its event."""

    def __init__(self) -> None:
        self.looked = threading.Event()
        super().__init__()
        self._passed = self.passed = Passed(self.looked)
        self._go_on = self.go_on = GoOn()

    @property
    def _is_scheduled(self) -> bool:
        return self._scheduled

    @_is_scheduled.setter
    def _is_scheduled(self, value: bool) -> None:
        if not value and hasattr(self, "passed") and self.passed.appended and not self.looked.is_set():
            self.looked.set()
            assert self.go_on.rests.wait(SECONDS)
        self._scheduled = value


async def test_a_thread_that_begins_to_rest_while_the_loop_ends_its_turn_is_woken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(completion_queue, "TRIED_EVENTS", 2)
    monkeypatch.setattr(listener, "CompletionQueue", MeetingQueue)
    async with listening() as (served, port), connection(port) as client:
        queue: Any = served._queue
        await client.ping()
        client.send(unary(1, MISSING), unary(3, MISSING))
        while queue.passed.appended < 2:  # the loop does nothing else meanwhile
            pass
        await client.until(lambda: client.ended >= {1, 3})
        client.send(unary(5, UNARY))
        await client.until(lambda: 5 in client.ended)
