"""A stream whose token is withdrawn ends once the steps that it has read are answered: the client knows what counts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cellkeeper import AccessDenied, AsyncClient

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer
from tests.integration.client.conftest import QUICK, until

from .tenants import entry


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def unanswered(server: ForkedServer) -> int:
    found = re.search(r"^cellkeeper_queue_depth (\d+)", server.metrics(), re.MULTILINE)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("websocket", [False, True], ids=["grpc", "websocket"])
async def test_the_steps_in_progress_are_answered(
    counting_model: Path, tmp_path: Path, redis: RedisServer, websocket: bool
) -> None:
    (first, first_line), (second, second_line) = entry("acme", "step"), entry("acme", "step")
    tokens, shown = tmp_path / "tokens", tmp_path / "token"
    tokens.write_text(first_line)
    shown.write_text(first)
    options = ["--tokens", str(tokens), "--store-timeout-ms", "20000"]
    with ForkedServer([counting_model], redis.url, options, http=True) as server:
        address = server.websocket if websocket else None
        async with AsyncClient(server.target, timeout=20, backoff=QUICK, token=shown, websocket=address) as client:
            session = await client.session("pump")
            assert (await session.step([1.0])).tolist() == [1.0]
            redis.pause()
            in_progress = asyncio.create_task(session.step([2.0]))
            await until(lambda: unanswered(server) == 1)
            tokens.write_text(second_line)
            server.wait_for("tokens: reloaded")
            with pytest.raises(AccessDenied):
                await client.session("fan")  # what is withdrawn is so for everything that comes now
            redis.wake()
            assert (await in_progress).tolist() == [3.0]
            with pytest.raises(AccessDenied) as refused:
                await session.step([4.0])
            assert refused.value.late_step is None
            shown.write_text(second)
            assert (await session.step([5.0])).tolist() == [8.0]
