"""What is closed says so: every later call raises Closed, and closing again does nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from cellkeeper import AsyncClient, Backoff, Client, Closed, DeadlineExceeded, GroupError

from .conftest import ServerThread, until
from .counting_server import CountingServer
from .test_own_thread import CLIENT, GROUP, SESSION

X = [1.0, 1.0]


@pytest.fixture(scope="module")
def counting() -> Iterator[ServerThread]:
    thread = ServerThread()
    yield thread
    thread.close()


def calls_of(table: dict[str, Callable[[Any], object]]) -> list[Any]:
    """Returns those that raise Closed. A forecast asks first whether the model makes any."""
    others = ("unsettled", "close", "forecast", "forecast_reply")
    return [pytest.param(call, id=name) for name, call in table.items() if name not in others]


@pytest.mark.parametrize("call", calls_of(SESSION))
def test_a_closed_session(counting: ServerThread, call: Callable[[Any], object]) -> None:
    with Client(counting.target) as client:
        session = client.session("closed")
        session.close()
        session.close()
        with pytest.raises(Closed, match="session 'closed' was closed"):
            call(session)
        assert session.unsettled == ()
        assert repr(session).endswith(", closed>")
        assert client.session_info("closed").session == "closed", "a closed object changed its session"


@pytest.mark.parametrize("call", calls_of(GROUP))
def test_a_closed_group(counting: ServerThread, call: Callable[[Any], object]) -> None:
    with Client(counting.target) as client:
        group = client.group(["member"])
        group.close()
        group.close()
        with pytest.raises(Closed, match="the group was closed"):
            call(group)
        assert repr(group).endswith(", closed>")
        assert client.session_info("member").session == "member"


@pytest.mark.parametrize("call", calls_of({**CLIENT, "with": lambda client: client.__enter__()}))
def test_a_closed_client(counting: ServerThread, call: Callable[[Any], object]) -> None:
    client = Client(counting.target)
    client.close()
    client.close()
    with pytest.raises(Closed, match="the client was closed"):
        call(client)


async def test_those_of_asyncio(server: CountingServer) -> None:
    async with AsyncClient(f"127.0.0.1:{server.port}") as client:
        session, group = await client.session("a"), await client.group(["b"])
        for one in (session, group):
            await one.close()
            await one.close()
            with pytest.raises(Closed):
                await one.state()
        with pytest.raises(Closed):
            await session.info()
        with pytest.raises(Closed):
            await group.add(["c"])
        again, others = await client.session("a"), await client.group(["b"])
    for one in (again, others):
        assert repr(one).endswith(", closed>")
        with pytest.raises(Closed, match="the client was closed"):
            await one.state()
    with pytest.raises(Closed, match="the client was closed"):
        await again.step(X)
    with pytest.raises(Closed):
        async with client:
            pass


Waiting = Callable[[AsyncClient], Awaitable[object]]
WAITING: list[Waiting] = [lambda client: client.models(), lambda client: client.wait_ready()]


@pytest.fixture
async def silent() -> AsyncIterator[socket.socket]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


def address(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


async def accepted(listener: socket.socket) -> socket.socket:
    connection, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), 20)
    return connection


@pytest.mark.parametrize("call", WAITING)
async def test_closing_ends_calls_that_wait_for_an_answer(silent: socket.socket, call: Waiting) -> None:
    client = AsyncClient(address(silent), timeout=60, attempt_timeout=60)
    waiting = asyncio.ensure_future(call(client))
    with await accepted(silent):
        await client.close()
        with pytest.raises(Closed):
            await asyncio.wait_for(waiting, 20)


@pytest.mark.parametrize("call", WAITING)
async def test_a_caller_that_cancels_is_cancelled(silent: socket.socket, call: Waiting) -> None:
    async with AsyncClient(address(silent), timeout=60, attempt_timeout=60) as client:
        waiting = asyncio.ensure_future(call(client))
        with await accepted(silent):
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


async def test_closing_ends_calls_that_wait_for_their_next_attempt() -> None:
    slow = Backoff(first_seconds=3600, max_seconds=3600)
    client = AsyncClient("localhost:1", timeout=86_400, connect_timeout=3600, backoff=slow)
    waiting = asyncio.ensure_future(client.models())
    await until(lambda: bool(client._connected().closing._closed._waiters))
    await client.close()
    with pytest.raises(Closed):
        await asyncio.wait_for(waiting, 20)


async def test_closing_ends_whoever_waits_for_a_late_step(server: CountingServer) -> None:
    client = AsyncClient(f"127.0.0.1:{server.port}", timeout=60)
    session, group = await client.session("a"), await client.group(["b"])
    server.gate.clear()
    with pytest.raises(DeadlineExceeded):
        await session.step(X, timeout=0.1)
    with pytest.raises(GroupError):
        await group.step([X], timeout=0.1)
    waiting = [asyncio.ensure_future(one) for one in (session.settle(), session.peek(X), group.settle())]
    await asyncio.sleep(0)
    await client.close()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [Closed, Closed, GroupError]
    assert isinstance(ends[2], GroupError)
    assert isinstance(ends[2].errors["b"], Closed)
