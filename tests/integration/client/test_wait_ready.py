"""wait_ready waits until a server answers, accepts the token, serves and reaches its store, or says what is missing."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cellkeeper import AccessDenied, AsyncClient, Client, Closed, DeadlineExceeded, InvalidArgument
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer
from testing.held_port import HeldPort
from testing.redis_server import RedisServer
from tests.integration.access.tenants import entry

from .conftest import QUICK
from .counting_server import CountingServer


def test_a_ready_server_is_not_waited_for(target: str, nobody: str) -> None:
    with Client([nobody, target]) as client:
        for timeout in (None, 20, timedelta(seconds=20)):
            client.wait_ready(timeout)
        for wrong in (0, -1, "5"):
            unusable: Any = wrong
            with pytest.raises(InvalidArgument, match="timeout: got"):
                client.wait_ready(unusable)
    with pytest.raises(Closed):
        client.wait_ready()


def test_without_a_server_it_says_what_was_wrong_last(nobody: str) -> None:
    with Client(nobody, backoff=QUICK) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=rf"no server was ready within 1 s \({nobody}\): .*refused"):
            client.wait_ready(1.0)  # longer than the client's connect_timeout
        assert 1.0 <= time.monotonic() - began < 5.0


class Empty(CountingServer):
    """Serves no model until `models` is set."""

    models = False

    async def ListModels(self, request: Any, context: Any) -> Any:
        return await super().ListModels(request, context) if self.models else pb.ListModelsResponse()


async def test_a_server_without_models_is_not_ready() -> None:
    server = Empty()
    target = await server.start()
    async with AsyncClient(target, backoff=QUICK) as client:
        with pytest.raises(DeadlineExceeded, match=f"{target} serves no model"):
            await client.wait_ready(0.2)
        server.models = True
        await client.wait_ready(20)
    await server.stop()


async def test_a_server_that_starts_later_is_waited_for() -> None:
    late = CountingServer()
    with HeldPort() as port:
        async with AsyncClient(f"127.0.0.1:{port}", backoff=QUICK) as client:
            waiting = asyncio.ensure_future(client.wait_ready(20))
            with pytest.raises(DeadlineExceeded):
                await client.wait_ready(0.1)
            assert not waiting.done()
            await late.start(port)
            await waiting
            assert (await (await client.session("a")).step([1.0, 1.0])).tolist() == [1, 1]
        await late.stop()


def test_the_servers_log_says_what_asked_for_a_session_that_does_not_exist(tmp_path: Path) -> None:
    bundle = counting_bundle(tmp_path / "count", features=2)
    with ForkedServer([bundle], "memory:") as server:
        with Client(server.target) as client:
            client.wait_ready(20)
        server.stop()
        (line,) = [line for line in server.output().splitlines() if "SESSION_NOT_FOUND" in line]
    assert "request_id=cellkeeper-wait-ready" in line


async def test_its_store_and_its_end_are_told_and_a_token_is_checked_at_once(tmp_path: Path) -> None:
    token, line = entry("acme", "step,read")
    tokens = tmp_path / "tokens"
    tokens.write_text(line + "\n")
    options = ["--tokens", str(tokens), "--drain-delay-ms", "20000"]
    bundle = counting_bundle(tmp_path / "count", features=2)
    with RedisServer() as redis, ForkedServer([bundle], redis.url, options) as server:
        async with (
            AsyncClient(server.target, token=token, backoff=QUICK) as client,
            AsyncClient(server.target, token="bad") as other,
        ):
            await client.wait_ready(20)
            with pytest.raises(AccessDenied):
                await asyncio.wait_for(other.wait_ready(60), 10)
            redis.kill()
            with pytest.raises(DeadlineExceeded, match="store"):
                await client.wait_ready(1)
            redis.restart()
            await client.wait_ready(20)
            server.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait_for, "serving for another")
            with pytest.raises(DeadlineExceeded, match=f"{server.target} reports NOT_SERVING"):
                await client.wait_ready(1)
        server.kill()
