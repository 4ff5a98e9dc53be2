"""The harness does to a store what it says: a power cut takes nothing that had to be kept."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from testing.redis_server import RedisServer

from .aof import cut, newest_file, open_transaction
from .power import UNSYNCED_S, SyncedAlways
from .proxy import Proxy
from .stores import RedisEverysec, RedisPair

TWO_WRITES = "redis.call('SET', KEYS[1], ARGV[1]); redis.call('SET', KEYS[2], ARGV[1])"
RUNS = 4


def set_two(client: redis.Redis, value: str) -> None:
    client.eval(TWO_WRITES, 2, "a", "b", value)


async def wait_for(least_s: float, most_s: float) -> None:
    """Replaces the workload's pause: servers continue meanwhile, but get no answers."""
    await asyncio.sleep(most_s)


class Latest(random.Random):
    """Cuts off as much as possible."""

    def randint(self, least: int, most: int) -> int:
        return least


def test_a_power_cut_takes_what_was_not_synced() -> None:
    with RedisEverysec() as store, closing(store.primary.client()) as client:
        client.set("old", "1")
        path = newest_file(store.primary.folder)
        size = path.stat().st_size
        while store.power.seen_at(time.monotonic() - UNSYNCED_S) != (path, size):
            time.sleep(0.02)  # between two checks of the condition
        client.set("new", "1")
        done = store.power.cut_now(Latest())
        assert (done.synced_bytes, done.kept_bytes) == (size, size)
        assert done.size_bytes > size
        store.primary.restart()
        assert client.get("old") == b"1"
        assert client.get("new") is None
        client.set("new", "2")
        store.primary.kill()
        store.primary.restart()
        assert client.get("new") == b"2"


def test_what_one_power_cut_left_is_safe_from_the_next() -> None:
    with RedisEverysec() as store, closing(store.primary.client()) as client:
        draw = random.Random(3)
        for number in range(RUNS):
            for value in range(20):
                set_two(client, f"{number}, {value}")
            before = newest_file(store.primary.folder).read_bytes()
            done = store.power.cut_now(draw)
            after = newest_file(store.primary.folder).read_bytes()
            assert after == before[: done.kept_bytes]
            assert number == 0 or done.synced_bytes <= done.kept_bytes <= done.size_bytes
            second = store.power.cut_now(draw)
            assert second.kept_bytes == done.kept_bytes
            store.primary.restart()


async def test_with_always_a_power_cut_takes_nothing_that_was_acknowledged() -> None:
    """Writers on four connections record their answers; after each of several power cuts, all of it is there."""
    draw, acknowledged, cuts = random.Random(5), [0] * 4, []
    with RedisServer({"auto-aof-rewrite-percentage": "0"}) as server:
        async with Proxy(("127.0.0.1", server.port)) as proxy:

            async def write(number: int, under_way: asyncio.Semaphore) -> None:
                with suppress(redis.RedisError, OSError):
                    async with redis.asyncio.Redis(port=proxy.port, retry=Retry(NoBackoff(), 0)) as client:
                        for done in count():
                            value = acknowledged[number] + 1
                            await client.eval(TWO_WRITES, 2, f"a{number}", f"b{number}", value)
                            acknowledged[number] = value
                            if done == 5:
                                under_way.release()

            for _ in range(RUNS):
                under_way = asyncio.Semaphore(0)
                writers = [asyncio.create_task(write(number, under_way)) for number in range(4)]
                for _ in writers:
                    await under_way.acquire()
                cuts.append(await SyncedAlways(server, [proxy], wait_for).cut(draw))
                await asyncio.gather(*writers)
                assert not proxy.hold_replies
                await asyncio.to_thread(server.restart)
                with closing(server.client()) as client:
                    found = [int(client.get(f"a{number}") or 0) for number in range(4)]
                # At most one more: it was written, and nobody was told.
                assert all(now <= at <= now + 1 for now, at in zip(acknowledged, found, strict=True)), acknowledged
                acknowledged[:] = found
    assert all(cut.synced_bytes <= cut.kept_bytes <= cut.size_bytes for cut in cuts)
    assert any(cut.synced_bytes < cut.size_bytes for cut in cuts)  # there was something to lose


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Path]]:
    """Yields a stopped server and a copy of its folder, with a transaction of two writes, and another one."""
    with RedisServer() as server:
        with closing(server.client()) as client:
            set_two(client, "1")
            set_two(client, "2")
        server.kill()
        kept = tmp_path_factory.mktemp("written") / "data"
        shutil.copytree(server.folder, kept)
        yield server, kept


@pytest.mark.parametrize(
    ("lost_bytes", "in_transaction", "commands"),
    [
        pytest.param(0, False, None, id="nothing"),
        pytest.param(7, True, 2, id="within EXEC"),
        pytest.param(14, False, None, id="before EXEC"),  # Redis removes MULTI as well
        pytest.param(20, True, 1, id="within the second write"),
        pytest.param(14 + 27, False, None, id="before the second write"),
        pytest.param(14 + 27 + 9, True, 0, id="within the first write"),
        pytest.param(14 + 2 * 27 + 3, False, None, id="within MULTI"),
    ],
)
def test_a_cut_within_a_transaction_leaves_half_of_it(
    written: tuple[RedisServer, Path], lost_bytes: int, in_transaction: bool, commands: int | None
) -> None:
    server, kept = written
    shutil.rmtree(server.folder)
    shutil.copytree(kept, server.folder)
    path = newest_file(server.folder)
    assert cut(path, path.stat().st_size - lost_bytes) is in_transaction
    server.restart()
    with closing(server.client()) as client:
        assert client.get("a") == client.get("b") == (b"1" if lost_bytes else b"2")
    server.kill()
    left = open_transaction(path.read_bytes())
    assert (left.commands if left is not None else None) == commands
    assert left is None or not left.is_torn


def test_a_replica_is_in_step_once_its_file_is_written() -> None:
    pair = RedisPair("always")

    async def replicate() -> None:
        async with pair.link:
            pair.link.target = pair.address
            await asyncio.to_thread(pair.follow)
            await asyncio.to_thread(pair.wait_until_in_step)
            await asyncio.to_thread(pair.replica.kill)

    with pair:
        with closing(pair.primary.client()) as client:
            client.set("a", "1")
        asyncio.run(replicate())
        pair.replica.restart()
        with closing(pair.replica.client()) as client:
            assert client.get("a") == b"1"


def test_a_server_that_ends_by_itself_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    with RedisServer() as server:
        os.kill(server.pid, signal.SIGTERM)  # not by the harness
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    said = capfd.readouterr().err
    assert f"redis-server on port {server.port} ended by itself with 0:" in said
    assert "Received SIGTERM" in said
