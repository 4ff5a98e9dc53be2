"""/healthz, /readyz and gRPC's own health service, from a server's start to its end."""

from __future__ import annotations

import asyncio
import signal
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import numpy as np
import pytest
from cellkeeper.aio import AsyncClient
from cellkeeper_service.metrics import MetricsServer, PrometheusMeter
from cellkeeper_service.server.readiness import Readiness
from grpc_health.v1 import health_pb2, health_pb2_grpc

from testing.forked_server import ForkedServer
from testing.held_port import HeldPort
from testing.redis_server import RedisServer
from tests.integration.program.workers import Workers

from .load import until

OPTIONS = ("--device", "cpu", "--max-batch", "64")


def probe(base: str, path: str) -> tuple[int, str]:
    try:
        with urlopen(base + path, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def probes(server: ForkedServer) -> tuple[tuple[int, str], tuple[int, str]]:
    base = server.metrics_url.removesuffix("/metrics")
    return probe(base, "/healthz"), probe(base, "/readyz")


ALIVE, READY = (200, "alive\n"), (200, "ready\n")


def test_a_loop_that_has_ended_is_draining() -> None:
    """As after a start that failed: the metrics port still answers while the store closes."""
    readiness = Readiness()

    async def reach_store() -> str:
        return ""

    async def serve() -> None:
        readiness.serving(reach_store)

    asyncio.run(serve())
    assert (readiness.why_dead(), readiness.why_not_ready()) == ("", "draining")


class EndingLoop(asyncio.SelectorEventLoop):
    """Is closed at the last of `calls` calls from other threads. schedules: the callback of that call was scheduled
    before, and never runs."""

    def __init__(self, calls: int, schedules: bool) -> None:
        super().__init__()
        self._left = calls
        self._schedules = schedules

    def call_soon_threadsafe(  # type: ignore[override]  # the stubs want a type variable tuple
        self, callback: Any, *arguments: Any, context: Any = None
    ) -> asyncio.Handle:
        self._left -= 1
        if self._left > 0:
            callback(*arguments)
            return asyncio.Handle(callback, arguments, self)
        if not self._schedules:
            self.close()
        handle = super().call_soon_threadsafe(callback, *arguments)
        self.close()
        return handle


@pytest.mark.parametrize("schedules", [False, True])
@pytest.mark.parametrize(
    ("question", "calls", "answer"),
    [("why_dead", 1, ""), ("why_not_ready", 1, "draining"), ("why_not_ready", 2, "draining")],
)
def test_a_loop_that_ends_while_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, question: str, calls: int, answer: str, schedules: bool
) -> None:
    """It is asked whether it lives, and then about the store."""
    monkeypatch.setattr("cellkeeper_service.server.readiness.LIVE_SECONDS", 0.01)
    readiness = Readiness()

    async def reach_store() -> str:
        return ""

    async def serve() -> None:
        readiness.serving(reach_store)

    loop = EndingLoop(calls, schedules)
    loop.run_until_complete(serve())
    assert getattr(readiness, question)() == answer


def test_a_loop_that_ends_while_it_asks_the_store_is_draining() -> None:
    readiness, answers = Readiness(), list[str]()
    asking = Thread(target=lambda: answers.append(readiness.why_not_ready()))

    async def serve() -> None:
        asked = asyncio.Event()

        async def reach_store() -> str:
            asked.set()
            await asyncio.Event().wait()
            return ""

        readiness.serving(reach_store)
        asking.start()
        await asked.wait()

    asyncio.run(serve())
    asking.join()
    assert answers == ["draining"]


async def test_from_loading_to_draining() -> None:
    readiness, store = Readiness(), ""

    async def reach_store() -> str:
        return store

    with closing(
        MetricsServer(PrometheusMeter().exposition, "127.0.0.1", 0, readiness.why_dead, readiness.why_not_ready)
    ) as server:
        base = server.url.removesuffix("/metrics")

        async def both() -> list[tuple[int, str]]:
            return [await asyncio.to_thread(probe, base, path) for path in ("/healthz", "/readyz")]

        assert await both() == [ALIVE, (503, "not ready: loading its models\n")]
        readiness.serving(reach_store)
        assert await both() == [ALIVE, READY]
        store = "the store cannot be used: it is away"
        assert await both() == [ALIVE, (503, "not ready: the store cannot be used: it is away\n")]
        store = ""
        readiness.end()
        assert await both() == [ALIVE, (503, "not ready: draining\n")]


def test_a_loop_that_is_stuck_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellkeeper_service.server.readiness.LIVE_SECONDS", 0.2)
    readiness, serving, stuck, free = Readiness(), Event(), Event(), Event()

    async def reach_store() -> str:
        return ""

    async def serve() -> None:
        readiness.serving(reach_store)
        serving.set()
        await asyncio.to_thread(stuck.wait)
        free.wait(30)

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    serving.wait()
    assert readiness.why_dead() == readiness.why_not_ready() == ""
    stuck.set()
    while not readiness.why_dead():
        pass
    assert "did not respond within" in readiness.why_not_ready()
    free.set()
    thread.join()
    assert readiness.why_dead() == ""  # the blockage ends


async def test_not_ready_while_the_store_is_away(counting_model: Path, own_redis: RedisServer) -> None:
    with ForkedServer([counting_model], own_redis.url, (*OPTIONS, "--store-timeout-ms", "300")) as server:
        assert probes(server) == (ALIVE, READY)
        own_redis.kill()
        why = (
            "Redis cannot be reached: ConnectionError: Error 111 connecting to "
            f"127.0.0.1:{own_redis.port}. Connection refused; start Redis, or correct the store's URL"
        )
        await until(lambda: probes(server) == (ALIVE, (503, f"not ready: the store cannot be used: {why}\n")))
        own_redis.restart()
        await until(lambda: probes(server) == (ALIVE, READY))


async def test_not_ready_while_the_store_may_evict(counting_model: Path, own_redis: RedisServer) -> None:
    """It answers, so the probe must not say that it does not."""
    with ForkedServer([counting_model], own_redis.url, OPTIONS) as server, own_redis.client() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        admin.client_kill_filter(_type="normal", skipme=True)
        status, text = 503, "not ready: the store cannot be used: Redis has maxmemory-policy 'allkeys-lru', which may"
        await until(lambda: probes(server)[1][0] == status and probes(server)[1][1].startswith(text))
        admin.config_set("maxmemory-policy", "noeviction")
        await until(lambda: probes(server) == (ALIVE, READY))


async def test_a_delayed_end_is_announced_at_once_and_serves_until_then(counting_model: Path, tmp_path: Path) -> None:
    """The client's stream is ended, not lost: only its reconnect shows."""
    options = (*OPTIONS, "--drain-delay-ms", "3000")
    with ForkedServer([counting_model], f"sqlite:{tmp_path / 's.db'}", options) as server:
        async with AsyncClient(server.target, timeout=60) as client:
            session = await client.open("s")
            await session.step([1.0])
            server.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait_for, "serving for another 3000 ms")
            assert await asyncio.to_thread(probes, server) == (ALIVE, (503, "not ready: draining\n"))
            with grpc.insecure_channel(server.target) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                found = await asyncio.to_thread(health.Check, health_pb2.HealthCheckRequest())
                assert found.status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await session.step([2.0])).tolist() == [3.0]
            assert (await (await client.open("new")).step([5.0])).tolist() == [5.0]
            await asyncio.to_thread(server.wait_for, "^stopped")
            waiting = asyncio.create_task(session.step(np.ones((1, 1))))
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.restart)
            assert (await waiting).tolist() == [[4.0]]


async def test_workers_are_ready_when_all_of_them_are(counting_model: Path, tmp_path: Path) -> None:
    store = f"--store=sqlite:{tmp_path / 's.db'}"
    with HeldPort() as port, Workers(store, counting_model, f"--metrics-listen=127.0.0.1:{port}") as workers:
        base = f"http://127.0.0.1:{port}"
        workers.read_until("metrics of all workers")
        assert probe(base, "/healthz") == ALIVE
        workers.wait_until_serving()
        await until(lambda: probe(base, "/readyz") == READY)
        workers.process.send_signal(signal.SIGTERM)
        assert workers.end() == 0
