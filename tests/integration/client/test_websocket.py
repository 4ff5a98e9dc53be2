"""Steps over a WebSocket keep the promises of gRPC, and each refusal is its own error."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper import (
    AccessDenied,
    AsyncClient,
    AsyncSession,
    CellkeeperError,
    Client,
    InvalidArgument,
    ResourceExhausted,
    Tls,
)
from cellkeeper_service.engine.load import offline
from numpy.typing import NDArray

from testing.bundles import counting_bundle, make_bundle
from testing.forked_server import ForkedServer
from tests.integration.access.certificates import Authority
from tests.integration.access.tenants import entry

from .conftest import QUICK, until

Array = NDArray[np.float32]
FEATURES = 3
SMALL = [
    "--max-message-bytes",
    "12000",
    "--max-http-body-bytes",
    "10000",
    "--max-chunk-steps",
    "4000",
    "--max-log-steps",
    "8000",
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("websocket") / "m", input_size=FEATURES)


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return counting_bundle(tmp_path_factory.mktemp("websocket") / "count")


@pytest.fixture(scope="module")
def server(counting: Path) -> Iterator[ForkedServer]:
    with ForkedServer([counting], "memory:", SMALL, http=True) as made:
        yield made


def frames_served(server: ForkedServer) -> float:
    """Returns the number of ended WebSockets of frames."""
    return server.metric("cellkeeper_http_request_seconds_count", route="/v1/frames")


# ------------------------------------------------------------------------------------------ what it promises


async def test_sessions_groups_and_chunks(server: ForkedServer) -> None:
    before = frames_served(server)
    async with AsyncClient(server.target, timeout=20, backoff=QUICK, websocket=server.websocket) as client:
        one = await client.session("one")
        assert (await one.step([1.0])).tolist() == [1.0]
        assert (await one.step([[1.0], [2.0]])).tolist() == [[2.0], [4.0]]
        group = await client.group([f"member {number}" for number in range(40)])
        outputs = await group.step(np.full((40, 1), 5.0, np.float32))
        assert outputs.tolist() == [[5.0]] * 40
        answers = [answer.tolist() async for answer in one.stream([[1.0], [1.0], [1.0]])]
        assert answers == [[5.0], [6.0], [7.0]]
        assert client.counters.stream_reconnects == 0
    assert frames_served(server) == before + 1  # all shared one, which ended with the client


def test_the_blocking_client(server: ForkedServer) -> None:
    with Client(server.target, timeout=20, websocket=server.websocket) as client:
        session = client.session("blocking")
        assert [session.step([1.0]).tolist() for _ in range(3)] == [[1.0], [2.0], [3.0]]


async def test_a_killed_server_goes_on_where_it_stood(bundle: Path, tmp_path: Path) -> None:
    inputs: Array = np.random.default_rng(3).standard_normal((60, FEATURES)).astype(np.float32)
    with ForkedServer([bundle], f"sqlite:{tmp_path / 's.db'}", http=True) as server:
        async with AsyncClient(server.target, timeout=60, attempt_timeout=2, backoff=QUICK,
                               websocket=server.websocket) as client:  # fmt: skip
            session, got = await client.session("pump"), []
            pending = [asyncio.ensure_future(session.step(row)) for row in inputs[:30]]
            await pending[0]
            server.kill()
            server.restart()
            got = list(await asyncio.gather(*pending))
            got += [await session.step(row) for row in inputs[30:]]
            assert session.position.step == 60
            assert client.counters.stream_reconnects >= 1
    assert np.array_equal(np.stack(got), offline(bundle, inputs)["prediction"])


async def test_a_server_that_ends_answers_what_it_has_and_another_goes_on(bundle: Path, tmp_path: Path) -> None:
    """The server asks its client to stop sending, and the client confirms with an empty message."""
    inputs: Array = np.random.default_rng(4).standard_normal((20, 40, FEATURES)).astype(np.float32)
    store = f"sqlite:{tmp_path / 's.db'}"
    with ForkedServer([bundle], store, http=True) as one, ForkedServer([bundle], store, http=True) as two:
        sockets = [one.websocket, two.websocket]
        async with AsyncClient([one.target, two.target], timeout=60, attempt_timeout=5, backoff=QUICK,
                               websocket=sockets) as client:  # fmt: skip
            sessions = [await client.session(f"s{number}") for number in range(20)]

            async def run(number: int) -> list[Array]:
                return [await sessions[number].step(row) for row in inputs[number]]

            runs = [asyncio.ensure_future(run(number)) for number in range(20)]
            await until(lambda: min(session.position.step for session in sessions) > 3, 30)
            status = await asyncio.to_thread(one.stop)
            got = await asyncio.gather(*runs)
        assert status == 0
    for number in range(20):
        assert np.array_equal(np.stack(got[number]), offline(bundle, inputs[number])["prediction"])


async def test_a_server_that_falls_silent_is_given_up(server: ForkedServer) -> None:
    async with (
        swallowing(server.websocket) as (url, swallow),
        AsyncClient(server.target, timeout=20, attempt_timeout=0.3, backoff=QUICK, websocket=url) as client,
    ):
        session = await client.session("silent")
        await session.step([1.0])
        swallow.set()
        waiting = asyncio.ensure_future(session.step([1.0]))
        await until(lambda: client.counters.stream_reconnects > 0)
        swallow.clear()
        assert (await waiting).tolist() == [2.0]


@asynccontextmanager
async def swallowing(url: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Yields the address of a proxy to that URL, and an event; while it is set, the proxy drops everything."""
    host, _, port = url.partition("://")[2].partition(":")
    swallow = asyncio.Event()
    pumps: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                if not swallow.is_set():
                    writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(host, int(port))
        for made in (pump(reader, to_writer), pump(to_reader, writer)):
            task = asyncio.get_running_loop().create_task(made)
            pumps.add(task)
            task.add_done_callback(pumps.discard)

    proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", swallow
    finally:
        proxy.close()
        for task in list(pumps):
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


# ------------------------------------------------------------------------------------------ what is refused


async def test_a_chunk_beyond_the_servers_message_is_refused_and_its_neighbours_go_on(server: ForkedServer) -> None:
    async with AsyncClient(server.target, timeout=20, backoff=QUICK, websocket=server.websocket) as client:
        large, small = await client.session("large"), await client.session("small")
        object.__setattr__(large.model, "max_chunk_steps", 0)  # as from a proxy that takes less than the server says
        with pytest.raises(ResourceExhausted, match=r"does not accept a message of this size.*send fewer time steps"):
            await large.step(np.ones((4000, 1), np.float32))
        assert (await small.step([1.0])).tolist() == [1.0]
        assert (await (await client.session("large")).step([1.0])).tolist() == [1.0]


async def test_no_listener_there(server: ForkedServer, nobody: str) -> None:
    async with AsyncClient(server.target, timeout=1, backoff=QUICK, websocket=f"ws://{nobody}") as client:
        session = await client.session("pump")
        with pytest.raises(CellkeeperError, match=rf"ws://{nobody}/v1/frames cannot be reached"):
            await session.step([1.0])


async def test_a_listener_that_knows_no_frames(server: ForkedServer) -> None:
    elsewhere = server.metrics_url.removesuffix("/metrics").replace("http", "ws", 1)
    async with AsyncClient(server.target, timeout=20, backoff=QUICK, websocket=elsewhere) as client:
        session = await client.session("pump")
        with pytest.raises(InvalidArgument, match=r"answered with status 404; expected a server's --http-listen"):
            await session.step([1.0])


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_proxy_that_does_not_accept_the_token(server: ForkedServer, status: str) -> None:
    """As over gRPC, which makes the same of these statuses."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n".encode())
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        url = f"ws://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        async with AsyncClient(server.target, timeout=20, backoff=QUICK, websocket=url) as client:
            session = await client.session("pump")
            with pytest.raises(AccessDenied, match=f"answered with status {status[:3]}; a proxy there") as caught:
                await session.step([1.0])
            assert caught.value.reason == ""


async def test_a_listener_that_is_no_http(server: ForkedServer) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ready\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as mail:
        url = f"ws://127.0.0.1:{mail.sockets[0].getsockname()[1]}"
        async with AsyncClient(server.target, timeout=1, backoff=QUICK, websocket=url) as client:
            session = await client.session("pump")
            with pytest.raises(CellkeeperError, match="cannot be reached"):
                await session.step([1.0])


@pytest.mark.parametrize(
    ("websocket", "words"),
    [
        ("localhost:8080", "websocket: got 'localhost:8080', expected ws://host:port"),
        ("http://localhost:8080", "websocket: got 'http://localhost:8080', expected ws://"),
        ("ws://:8080", "expected ws://host:port"),
        ("ws://localhost:99999", "expected ws://host:port"),
        ("ws://user:secret@localhost:8080", "expected ws://host:port"),
        ("ws://localhost:8080/?x=1", "expected ws://host:port"),
        (7, "websocket: got 7, expected ws://"),
        (["ws://a:1", "ws://b:1"], "websocket: got 2 for 1 targets, expected one for each"),
        ([b"ws://a:1"], r"websocket: got b'ws://a:1', expected ws://"),
        ("wss://localhost:8080", "websocket: got wss://, expected wss:// if the client has tls, ws:// if not"),
    ],
)
def test_what_is_no_address(websocket: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        AsyncClient("localhost:50051", websocket=websocket)
    assert caught.value.field == "websocket"


def test_a_token_never_goes_unencrypted_beside_tls() -> None:
    with pytest.raises(InvalidArgument, match="websocket: got ws://, expected wss://"):
        AsyncClient("localhost:50051", tls=True, websocket="ws://localhost:8080")


def test_a_path_before_the_servers_own() -> None:
    """For servers behind a proxy."""
    from cellkeeper._transport.websocket_address import checked_addresses

    (address,) = checked_addresses("ws://example.com/cells/", ("example.com:443",), None)
    assert address.url == "ws://example.com/cells/v1/frames"


# ------------------------------------------------------------------------------------------ tokens and TLS


async def test_a_token_that_is_withdrawn_and_one_that_follows(counting: Path, tmp_path: Path) -> None:
    first, first_line = entry("acme", "step")
    second, second_line = entry("acme", "step")
    tokens, shown = tmp_path / "tokens", tmp_path / "token"
    tokens.write_text(first_line)
    shown.write_text(first)

    async def step_until_refused(session: AsyncSession) -> None:
        while True:
            await session.step([0.0])

    with ForkedServer([counting], "memory:", ["--tokens", str(tokens)], http=True) as server:
        async with AsyncClient(
            server.target, timeout=20, backoff=QUICK, token=shown, websocket=server.websocket
        ) as client:
            session = await client.session("pump")
            assert (await session.step([1.0])).tolist() == [1.0]
            tokens.write_text(second_line)
            with pytest.raises(AccessDenied):
                await asyncio.wait_for(step_until_refused(session), 20)
            shown.write_text(second)
            assert (await session.step([1.0])).tolist() == [2.0]


async def test_tls(counting: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    ours, other = Authority(tmp_path), Authority(tmp_path / "other", "other")
    cert, key = ours.issue("cells.example.com")
    name = ours.issue("pumps")
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(ours.file)]
    tokens = tmp_path / "tokens"
    tokens.write_text("certificate tenant=acme rights=step,read name=pumps\n")
    with ForkedServer([counting], "memory:", [*options, "--tokens", str(tokens)], http=True) as server:

        def client(authority: Authority, server_name: str = "", timeout: float = 20) -> AsyncClient:
            tls = Tls(authority.file, *name, server_name=server_name)
            socket_url = server.websocket.replace("127.0.0.1", "localhost")
            target = server.target.replace("127.0.0.1", "localhost")
            return AsyncClient(target, timeout=timeout, backoff=QUICK, tls=tls, websocket=socket_url)

        for server_name in ("", "cells.example.com"):
            async with client(ours, server_name) as allowed:
                session = await allowed.session(f"pump {server_name}")
                assert (await session.step([1.0])).tolist() == [1.0]
        with pytest.raises(InvalidArgument, match="tls: a file cannot be used"):
            AsyncClient(server.target, tls=Tls(cert_file=cert, key_file=cert), websocket="wss://localhost:1")

        stranger = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        stranger.load_cert_chain(*other.issue("localhost"))
        elsewhere = await asyncio.start_server(lambda _, writer: writer.close(), "localhost", 0, ssl=stranger)
        async with elsewhere:
            url = f"wss://localhost:{elsewhere.sockets[0].getsockname()[1]}"
            target = server.target.replace("127.0.0.1", "localhost")
            tls = Tls(ours.file, *name)
            async with AsyncClient(target, timeout=1, backoff=QUICK, tls=tls, websocket=url) as deceived:
                session = await deceived.session("pump")
                with pytest.raises(CellkeeperError, match="certificate verify failed"):
                    await session.step([1.0])
