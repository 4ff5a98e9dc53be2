"""Servers are replaced under load: no caller sees an error, every bit is right, and sessions return home."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .rolling import Verdict, roll

OPTIONS = ("--device", "cpu", "--max-batch", "64")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("rolling") / "m", name="m", hidden_size=48, num_layers=2)


async def rolled(bundle: Path, stores: Sequence[str], rounds: int = 1) -> Verdict:
    servers = [ForkedServer([bundle], store, OPTIONS) for store in stores]
    with ExitStack() as stack:
        with ThreadPoolExecutor(len(servers)) as threads:
            list(threads.map(stack.enter_context, servers))
        verdict = await roll(servers, bundle, rounds, waiting=24, pipelining=6)
    assert len(verdict.turns) == len(stores) * rounds
    assert any(turn.away for turn in verdict.turns)  # some sessions had to return
    return verdict


async def test_three_replicas_on_one_redis(bundle: Path, own_redis: RedisServer) -> None:
    await rolled(bundle, [own_redis.url] * 3)


@pytest.mark.fire
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["redis", "sqlite"])
async def test_three_replicas_again_and_again(kind: str, bundle: Path, own_redis: RedisServer, tmp_path: Path) -> None:
    store = own_redis.url if kind == "redis" else f"sqlite:{tmp_path / 'sessions.db'}"
    await rolled(bundle, [store] * 3, rounds=3)
