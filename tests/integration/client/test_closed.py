"""What is closed says so: every later call raises Closed, and closing again does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cellkeeper import AsyncClient, Client, Closed

from .conftest import ServerThread
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
    async with AsyncClient(f"localhost:{server.port}") as client:
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
        again = await client.session("a")
    assert repr(again).endswith(", closed>")
    with pytest.raises(Closed):
        await again.step(X)
    with pytest.raises(Closed):
        async with client:
            pass
