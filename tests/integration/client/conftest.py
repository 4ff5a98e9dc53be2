"""Servers for the client's tests.

A test that needs none of the counting server's hooks takes `target`, and thus runs on a real server, too.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from cellkeeper import AsyncClient, AsyncGroup, Backoff, Client

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer
from testing.held_port import HeldPort

from .counting_server import CountingServer
from .ones import IDS

T = TypeVar("T")
QUICK = Backoff(first_seconds=0.005, max_seconds=0.05)


@pytest.fixture
async def server() -> AsyncIterator[CountingServer]:
    """A counting server. A test may stop it, and start it or another on its port."""
    counting = CountingServer()
    with HeldPort() as port:
        await counting.start(port)
        yield counting
        counting.gate.set()
        await counting.stop()


@pytest.fixture
async def client(server: CountingServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{server.port}", timeout=20, backoff=QUICK) as made:
        yield made


@pytest.fixture
async def group(client: AsyncClient) -> AsyncGroup:
    """A group of eight sessions."""
    return await client.group(IDS)


class ServerThread:
    """A counting server on its own event loop, for blocking clients and other processes."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_quiet)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = self.do(self._make())
        self.target = f"127.0.0.1:{self.server.port}"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        self.do(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _make(self) -> CountingServer:
        server = CountingServer()
        await server.start()
        return server


def _quiet(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), BlockingIOError):  # grpc's poller, with several loops
        loop.default_exception_handler(context)


@pytest.fixture
def threaded() -> Iterator[ServerThread]:
    thread = ServerThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def real_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server process whose model computes what the counting server does."""
    bundle = counting_bundle(tmp_path_factory.mktemp("real") / "count", features=2)
    with ForkedServer([bundle], "memory:") as server:
        yield server.target


@pytest.fixture(params=["counting", "real"])
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server without sessions: the counting one, then a real one."""
    if request.param == "counting":
        thread: ServerThread = request.getfixturevalue("threaded")
        yield thread.target
        return
    real: str = request.getfixturevalue("real_target")
    empty(real)
    yield real


def empty(target: str) -> None:
    """Deletes the sessions that other tests left on a server."""
    with Client(target) as client:
        for info in list(client.sessions()):
            client.delete(info.session, info.position.generation)


@pytest.fixture
async def real_client(real_target: str) -> AsyncIterator[AsyncClient]:
    """A client of a real server without sessions."""
    empty(real_target)
    async with AsyncClient(real_target, timeout=20, backoff=QUICK) as made:
        yield made


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for a condition that other tasks make true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        await asyncio.sleep(0.001)
