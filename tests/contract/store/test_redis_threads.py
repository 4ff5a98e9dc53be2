"""Threads that look up servers at the same time: each line at which another thread may come in between."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from cellkeeper_service.store.redis import sentinel as sentinel_module
from cellkeeper_service.store.redis.cluster import Cluster
from cellkeeper_service.store.redis.link import Link
from cellkeeper_service.store.redis.sentinel import Sentinel, View, ask_view
from cellkeeper_service.store.redis.servers import Freshness
from cellkeeper_service.store.redis.url import Address

from testing.meanwhile import Meanwhile, TellingLock
from testing.redis_cluster import RedisCluster
from testing.redis_sentinel import RedisSentinels

TIMEOUT_MS = 5000
OTHER = Address("127.0.0.1", 1)


@pytest.fixture
def sentinel(redis_sentinels: RedisSentinels, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sentinel]:
    """Servers that have not been asked yet, and whose own thread does not come in between."""
    monkeypatch.setattr(sentinel_module, "WATCH_S", 3600.0)
    servers = Sentinel(redis_sentinels.url, TIMEOUT_MS)
    yield servers
    servers.close()


@pytest.fixture
def cluster(redis_cluster: RedisCluster) -> Iterator[Cluster]:
    servers = Cluster(redis_cluster.url, TIMEOUT_MS)
    yield servers
    servers.close()


class AtRecord(logging.Handler):
    """Begins another thread's work at the line that logs."""

    def __init__(self, meanwhile: Meanwhile) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def emit(self, record: logging.LogRecord) -> None:
        self._meanwhile.begin()


def test_nobody_finds_a_sentinels_answer_half_adopted(sentinel: Sentinel, caplog: pytest.LogCaptureFixture) -> None:
    """The primary is logged when it is known, and not adopted yet."""
    lock = TellingLock()
    sentinel._lock = lock  # type: ignore[assignment]

    def look_up() -> None:
        sentinel.refresh()
        assert sentinel.link(0) is not None

    other = Meanwhile(look_up, lock)
    logger, handler = logging.getLogger(sentinel_module.__name__), AtRecord(other)
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, sentinel_module.__name__):
            sentinel.refresh()
    finally:
        logger.removeHandler(handler)
    other.end()


def test_a_loss_while_the_sentinels_are_asked_is_not_forgotten(
    sentinel: Sentinel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[View] = []

    def ask(link: Link, service: str) -> View:
        asked.append(ask_view(link, service))
        if len(asked) == 1:
            sentinel.lost(link)  # another thread's call has failed, after this sentinel has answered
        return asked[-1]

    monkeypatch.setattr(sentinel_module, "ask_view", ask)
    sentinel.refresh()
    assert sentinel.at_hand() is None
    before = len(asked)
    sentinel.refresh()
    assert len(asked) > before
    assert sentinel.at_hand() is sentinel.link(0)


@pytest.mark.parametrize("fail_overs", [0, 1])
def test_views_that_were_overtaken_count_after_a_fail_over_alone(
    sentinel: Sentinel, monkeypatch: pytest.MonkeyPatch, fail_overs: int
) -> None:
    """While all sentinels are asked, without the lock, another thread asks some of them, and is answered first. The one
    that has led a fail-over knows of it before the others."""
    sentinel.refresh()

    def ask(link: Link, service: str) -> View:
        monkeypatch.setattr(sentinel_module, "ask_view", ask_view)
        sentinel.lost(link)
        sentinel.refresh()
        view = ask_view(link, service)
        return view._replace(down=True, epoch=view.epoch + fail_overs)

    monkeypatch.setattr(sentinel_module, "ask_view", ask)
    sentinel._ask_everybody()
    assert sentinel._primary is not None
    assert sentinel._primary.down == bool(fail_overs)


def test_a_clusters_nodes_are_forgotten_while_another_thread_meets_one(cluster: Cluster) -> None:
    lock = TellingLock()
    cluster._links_lock = lock  # type: ignore[assignment]
    found: list[Link] = []
    other = Meanwhile(lambda: found.append(cluster._link_at(OTHER)), lock)

    class Links(dict[Address, Link]):
        def items(self) -> Any:
            for item in super().items():
                other.begin()
                yield item

    cluster._links = Links(cluster._links)
    cluster.refresh()
    other.end()
    assert cluster._link_at(OTHER) is found[0]


def test_a_move_while_the_nodes_are_asked_is_not_forgotten(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Link] = []
    one = Link.one

    def ask(link: Link, *command: bytes | str | int) -> Any:
        reply = one(link, *command)
        asked.append(link)
        if len(asked) == 1:  # another thread is redirected, after this node has answered
            cluster.detour(link, redis.exceptions.MovedError(f"0 127.0.0.1:{OTHER.port}"))
        return reply

    monkeypatch.setattr(Link, "one", ask)
    cluster.refresh()
    before = len(asked)
    cluster.refresh()
    assert len(asked) > before
    before = len(asked)
    cluster.refresh()
    assert len(asked) == before


def test_a_check_is_not_failed_by_another_threads_doubt(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Link.one

    def ask(link: Link, *command: bytes | str | int) -> Any:
        reply = one(link, *command)
        cluster.detour(link, redis.exceptions.MovedError(f"0 127.0.0.1:{OTHER.port}"))
        return reply

    monkeypatch.setattr(Link, "one", ask)
    assert cluster.check(0).eviction == "noeviction"


def test_only_an_answer_from_after_the_last_doubt_counts() -> None:
    freshness = Freshness()
    assert freshness.is_stale
    early = freshness.asking()
    freshness.doubt()
    late = freshness.asking()
    freshness.answered(early)
    assert freshness.is_stale
    freshness.answered(late)
    assert not freshness.is_stale
    freshness.doubt()
    assert freshness.is_stale
