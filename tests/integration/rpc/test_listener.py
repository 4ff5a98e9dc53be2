"""What handlers and clients can rely on, on this listener and, as the reference, on grpcio's own asyncio server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from cellkeeper_service.rpc import grpc_call, grpc_core, listener
from cellkeeper_service.rpc.call_context import EOF
from cellkeeper_service.rpc.listener import Listener

from .http2 import connection, unary
from .listening_servers import END, PATH, SECONDS, Cancelled, Serve, ask, code_of, echo, on_grpc_aio, on_listener


@pytest.fixture(params=[on_listener, on_grpc_aio], ids=["listener", "grpc.aio"])
def serve(request: pytest.FixtureRequest) -> Serve:
    chosen: Serve = request.param
    return chosen


async def test_unary_calls_and_streams_get_their_replies(serve: Serve) -> None:
    async def each(call: Any) -> AsyncIterator[list[bytes]]:
        while (data := await call.read()) is not EOF:
            yield [data, data.upper()]

    for data in (b"", b"a", bytes(1 << 20)):
        async with serve(echo) as served, served.call() as start:
            assert await ask(start, data) == [data]
    async with serve(each, streams=True) as served, served.call() as start:
        call = start(timeout=SECONDS)
        for data in (b"a", b"", b"b"):
            await call.write(data)
            assert [await call.read(), await call.read()] == [data, data.upper()]
        await call.done_writing()
        assert await call.read() is END
        assert await call.code() is grpc.StatusCode.OK


async def test_metadata_deadline_and_peer_reach_the_handler(serve: Serve) -> None:
    seen: list[Any] = []

    async def look(call: Any) -> bytes:
        await call.read()
        seen.extend([dict(call.invocation_metadata()), call.time_remaining(), call.peer(), dict(call.auth_context())])
        return b""

    async with serve(look) as served, served.call() as start:
        await ask(start, metadata=(("word", "value"), ("bytes-bin", b"\0\xff")), timeout=SECONDS)
        await ask(start, timeout=None)
    metadata, left, peer, security = seen[:4]
    assert (metadata["word"], metadata["bytes-bin"]) == ("value", b"\0\xff")
    assert SECONDS - 10 < left <= SECONDS + 1
    assert peer.startswith("ipv4:127.0.0.1:")
    assert security["transport_security_type"] == [b"insecure"]
    assert seen[5] is None


@pytest.mark.parametrize("replies_before", [0, 2])
async def test_a_status_has_its_details_and_trailing_metadata(serve: Serve, replies_before: int) -> None:
    trailing = (("word", "value"), ("bytes-bin", b"\0\xff"))

    async def abort(call: Any) -> AsyncIterator[list[bytes]]:
        for _ in range(replies_before):
            yield [b"reply"]
        await call.abort(grpc.StatusCode.ABORTED, "why, at length: äöü \n%", trailing)

    async with serve(abort, streams=True) as served, served.call() as start:
        call = start(timeout=SECONDS)
        assert [await call.read() for _ in range(replies_before)] == [b"reply"] * replies_before
        assert await call.code() is grpc.StatusCode.ABORTED
        assert await call.details() == "why, at length: äöü \n%"
        assert tuple(await call.trailing_metadata()) == trailing


async def test_an_unknown_method_is_unimplemented(serve: Serve) -> None:
    async with serve(echo) as served, served.call("/test.Service/Other") as start:
        assert await code_of(start) is grpc.StatusCode.UNIMPLEMENTED


async def test_a_client_that_cancels_cancels_the_handler(serve: Serve) -> None:
    handler = Cancelled()
    async with serve(handler.answer) as served, served.call() as start:
        call = start(timeout=SECONDS)
        await asyncio.wait_for(handler.started.wait(), SECONDS)
        call.cancel()
        await asyncio.wait_for(handler.cancelled.wait(), SECONDS)


async def test_the_deadline_cancels_the_handler(serve: Serve) -> None:
    handler = Cancelled()
    async with serve(handler.answer) as served, served.call() as start:
        assert await code_of(start, timeout=0.5) is grpc.StatusCode.DEADLINE_EXCEEDED
        if handler.started.is_set():  # on a busy machine the deadline may pass first
            await asyncio.wait_for(handler.cancelled.wait(), SECONDS)


async def test_a_connection_that_is_lost_cancels_the_handler(serve: Serve) -> None:
    handler = Cancelled()
    async with serve(handler.answer) as served:
        async with connection(served.port) as client:
            client.send(unary(1, PATH))
            await asyncio.wait_for(handler.started.wait(), SECONDS)
        await asyncio.wait_for(handler.cancelled.wait(), SECONDS)


async def test_half_close_is_the_end_of_the_messages(serve: Serve) -> None:
    async def count(call: Any) -> bytes:
        messages = 0
        while await call.read() is not EOF:
            messages += 1
        assert await call.read() is EOF  # also when asked again
        return str(messages).encode()

    async with serve(count) as served, served.call() as start:
        assert [reply async for reply in start(iter([b"a", b"b", b"c"]), timeout=SECONDS)] == [b"3"]
        assert [reply async for reply in start(iter([]), timeout=SECONDS)] == [b"0"]


async def test_more_calls_than_allowed_are_refused_until_one_ends(serve: Serve) -> None:
    started, go = asyncio.Semaphore(0), asyncio.Event()

    async def wait(call: Any) -> bytes:
        await call.read()
        started.release()
        await go.wait()
        return b""

    async with serve(wait, max_rpcs=2) as served, served.call() as start:
        two = [asyncio.create_task(ask(start)) for _ in range(2)]
        for _ in two:
            await asyncio.wait_for(started.acquire(), SECONDS)
        assert await code_of(start) is grpc.StatusCode.RESOURCE_EXHAUSTED
        go.set()
        assert await asyncio.gather(*two) == [[b""]] * 2
        assert await ask(start) == [b""]


async def test_a_client_that_has_its_reply_is_not_counted_any_more() -> None:
    """The loop accepts its next call before the callbacks of the first call's task run."""
    async with AsyncExitStack() as stack:

        def accept_next() -> None:
            queue = served.listener._queue
            while not (queue._passed or queue._thread_rests):  # the loop does nothing else meanwhile
                pass
            queue._take()

        async def answer(call: Any) -> bytes:
            data = bytes(await call.read())
            if data == b"first":
                asyncio.get_running_loop().call_soon(accept_next)  # runs before those callbacks
            return data

        def call_twice() -> list[bytes]:
            channel: Any = grpc.insecure_channel(f"127.0.0.1:{served.port}")
            with channel:
                return [channel.unary_unary(PATH)(data, timeout=SECONDS) for data in (b"first", b"second")]

        served = await stack.enter_async_context(on_listener(answer, max_rpcs=1))
        assert await asyncio.to_thread(call_twice) == [b"first", b"second"]


async def test_replies_keep_their_order_and_none_is_lost(serve: Serve) -> None:
    """Lists of many lengths, and replies of many sizes, beyond what the connection takes at once."""
    sent = [number.to_bytes(4, "big") * (number % 17 * 300 + 1) for number in range(900)]

    async def many(call: Any) -> AsyncIterator[list[bytes]]:
        await call.read()
        at, length = 0, 0
        while at < len(sent):
            length = length % 40 + 1
            yield sent[at : at + length]
            at += length
            if length % 3 == 0:
                await asyncio.sleep(0)

    async with serve(many, streams=True) as served, served.call() as start:
        every = await asyncio.gather(*(ask(start) for _ in range(8)))
    assert all(replies == sent for replies in every)


async def test_replies_before_an_end_are_not_lost(serve: Serve) -> None:
    async def two_then(call: Any) -> AsyncIterator[list[bytes]]:
        yield [b"a", b"b"]
        await call.abort(grpc.StatusCode.ABORTED, "enough")

    async with serve(two_then, streams=True) as served, served.call() as start:
        for _ in range(50):
            call = start(timeout=SECONDS)
            assert [await call.read(), await call.read()] == [b"a", b"b"]
            assert await call.code() is grpc.StatusCode.ABORTED


async def test_a_client_that_does_not_read_holds_its_handler_back_alone(serve: Serve) -> None:
    written = 0

    async def many(call: Any) -> AsyncIterator[list[bytes]]:
        nonlocal written
        if await call.read() == b"few":
            yield [b"0"]
            return
        for number in range(10):
            yield [str(number).encode() * 1000]
            written = number + 1

    async with serve(many, streams=True) as served, served.call() as start, connection(served.port, 0) as client:
        client.send(unary(1, PATH, b"many"))
        await client.ping()
        for _ in range(100):
            assert await ask(start, b"few") == [b"0"]
        assert written <= 1  # one is on its way
        client.open_window(1 << 20, 1)
        await client.until(lambda: 1 in client.ended)
        assert client.data[1] == b"".join(b"\0\0\0\x03\xe8" + str(number).encode() * 1000 for number in range(10))
        assert written == 10


async def test_a_client_that_does_not_read_and_leaves_cancels_the_handler(serve: Serve) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def many(call: Any) -> AsyncIterator[list[bytes]]:
        started.set()
        try:
            while True:
                yield [bytes(1000)] * 5
        finally:
            ended.set()

    async with serve(many, streams=True) as served:
        async with connection(served.port, 0) as client:
            client.send(unary(1, PATH))
            await asyncio.wait_for(started.wait(), SECONDS)
            # gRPC overlooks a reset that comes together with the last bytes, such as an answer to a ping of its own,
            # until it writes again, as for keepalive. Once this ping is answered, no bytes are on their way to it.
            await client.ping()
        await asyncio.wait_for(ended.wait(), SECONDS)


async def test_stop_lets_calls_finish(serve: Serve) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def wait(call: Any) -> bytes:
        await call.read()
        started.set()
        await go.wait()
        return b"late"

    async with serve(wait) as served, served.call() as start:
        asked = asyncio.create_task(ask(start))
        await asyncio.wait_for(started.wait(), SECONDS)
        stopping = asyncio.create_task(served.stop(SECONDS))
        while await code_of(start) is not grpc.StatusCode.UNAVAILABLE:  # until it has started to stop
            pass
        assert not stopping.done()
        go.set()
        assert await asked == [b"late"]
        await asyncio.wait_for(stopping, SECONDS / 2)


@pytest.mark.parametrize("grace", [0, 0.2])
async def test_stop_cancels_what_does_not_finish(serve: Serve, grace: float) -> None:
    handler = Cancelled()
    async with serve(handler.answer) as served, served.call() as start:
        asked = asyncio.create_task(code_of(start))
        await asyncio.wait_for(handler.started.wait(), SECONDS)
        await asyncio.wait_for(served.stop(grace), SECONDS)
        assert await asked in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        await asyncio.wait_for(handler.cancelled.wait(), SECONDS)


async def test_a_second_stop_shortens_the_first(serve: Serve) -> None:
    handler = Cancelled()
    async with serve(handler.answer) as served, served.call() as start:
        asked = asyncio.create_task(code_of(start, timeout=None))
        await asyncio.wait_for(handler.started.wait(), SECONDS)
        long = asyncio.create_task(served.stop(1000))
        await asyncio.sleep(0)
        await asyncio.wait_for(served.stop(0.1), SECONDS)
        await asyncio.wait_for(long, SECONDS)
        await asked


@pytest.mark.parametrize("why", ["aborted", "not served", "too many"])
async def test_a_refused_stream_has_its_status_though_its_client_sends(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grpc.aio's clients report INTERNAL if the status comes while they send the first message.

    The service waits long enough for clients that run; a busy machine may hold them back for longer.
    """
    for module in (grpc_call, listener):
        monkeypatch.setattr(module, "REFUSAL_SECONDS", 0.1)

    async def abort(call: Any) -> AsyncIterator[list[bytes]]:
        await call.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        yield []

    expected = {
        "aborted": grpc.StatusCode.UNAUTHENTICATED,
        "not served": grpc.StatusCode.UNIMPLEMENTED,
        "too many": grpc.StatusCode.RESOURCE_EXHAUSTED,
    }

    async def code_of_sender() -> grpc.StatusCode:
        call = start(timeout=SECONDS)
        with suppress(grpc.aio.AioRpcError):
            await call.write(b"x" * 600)
        code: grpc.StatusCode = await call.code()
        return code

    path, most = "/test.Service/No" if why == "not served" else PATH, 0 if why == "too many" else 1000
    async with on_listener(abort, streams=True, max_rpcs=most) as served, served.call(path) as start:
        for _ in range(10):
            codes = await asyncio.gather(*(code_of_sender() for _ in range(40)))
            assert set(codes) == {expected[why]}


async def test_a_refusal_that_is_due_after_the_end_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client has left before. gRPC aborts the process if an operation begins once the queue has shut down."""
    due: list[Callable[[], None]] = []
    sent: list[Any] = []
    monkeypatch.setattr(grpc_core, "send_status", lambda *words, **named: sent.append(words))
    served = Listener({}, (), 9)
    later = SimpleNamespace(call_later=lambda seconds, refuse: due.append(refuse))
    monkeypatch.setattr(served, "_loop", later)
    port = served.listen("127.0.0.1:0", None)
    served.start()
    async with connection(port) as client:
        client.send(unary(1, "/test.Service/No"))
        await client.ping()
    await asyncio.wait_for(served.stop(0), SECONDS)
    await asyncio.wait_for(served.close(), SECONDS)
    assert len(due) == 1
    due[0]()
    assert not sent


async def test_calls_that_come_while_it_stops_are_answered_or_refused(serve: Serve) -> None:
    answered = 0

    async def count(call: Any) -> None:
        nonlocal answered
        answered += 1

    async with serve(count, streams=True) as served, served.call() as start:
        await code_of(start)
        asked = [asyncio.create_task(code_of(start)) for _ in range(300)]
        await asked[20]
        await asyncio.wait_for(served.stop(SECONDS), SECONDS)
        codes = await asyncio.gather(*asked)
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert codes.count(grpc.StatusCode.OK) + 1 == answered
