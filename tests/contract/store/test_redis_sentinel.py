"""What happens only with sentinels: a primary that is killed, cut off or demoted, or no longer is one."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import CommitResult, Load, Outcome, Store, StoreError
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis.link import Link
from cellkeeper_service.store.redis.sentinel import Sentinel, View, ask_view
from cellkeeper_service.store.redis.url import SentinelUrl

from testing.redis_sentinel import SERVICE, RedisSentinels
from testing.redis_server import wait_until
from tests.contract.store.polled import PolledStore
from tests.contract.store.records import append, committed, create, inputs, key, log_of
from tests.contract.store.worker import marked

TIMEOUT_MS = 500


@pytest.fixture(scope="module")
def world() -> Iterator[RedisSentinels]:
    """For the tests that cause a fail-over. Each leaves it whole, with either server as the primary."""
    with RedisSentinels(quick=True, options=[{"appendfsync": "everysec"}] * 2) as world:
        yield world


@pytest.fixture(params=["blocking", "polled"])
def store(world: RedisSentinels, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Tests both ways to commit."""
    world.wait_until_whole()
    world.empty()
    store = open_store(world.url, timeout_ms=TIMEOUT_MS)
    yield store if request.param == "blocking" else PolledStore(store)
    store.close()


def take_until_committed(store: Store, before: Header, mark: bytes) -> Header:
    """Sends one step until it is stored. Like the service, it reads the record after an unknown outcome."""
    commit = append(key(), before, mark)

    def is_written() -> bool:
        (result,) = store.commit_many([commit])
        if result.outcome is Outcome.CONFLICT:
            assert result.standing == commit.header, "somebody else's"
        return result.outcome in (Outcome.COMMITTED, Outcome.CONFLICT)

    wait_until(is_written)
    return commit.header


def test_a_killed_primary_is_followed(world: RedisSentinels, store: Store) -> None:
    first = committed(store, create(key()))
    third = committed(store, create(key("third"), 3))
    committed(store, append(key("third"), third, inputs(1)))
    primary = world.primary()
    world.wait_until_whole()  # nothing is lost then
    world.servers[primary].kill()
    (result,) = store.commit_many([append(key(), first, marked(1, 0))])
    assert result.outcome in (Outcome.UNREACHED, Outcome.UNKNOWN)
    header = take_until_committed(store, first, marked(1, 0))
    wait_until(lambda: world.primary() != primary)  # the sentinels tell each other
    header = committed(store, append(key(), header, marked(1, 1)))
    assert log_of(store, key()) == marked(1, 0) + marked(1, 1)
    assert log_of(store, key("third")) == inputs(1)
    world.servers[primary].restart()


@pytest.mark.fire
def test_a_demoted_primary_is_left(world: RedisSentinels, store: Store) -> None:
    """It runs and answers, but would answer reads from stale data."""
    header = committed(store, create(key()))
    world.wait_until_whole()  # nothing of this is lost then
    primary = world.primary()
    world.fail_over()
    world.wait_until_whole()  # an earlier commit would be lost with the old primary's others
    header = take_until_committed(store, header, marked(1, 0))
    wait_until(lambda: world.primary() != primary)  # the sentinels tell each other
    (record,) = store.load_many([Load(key(), touch=True)])
    assert isinstance(record, Record)
    assert record.header == header


@pytest.mark.fire
def test_a_failover_that_was_given_up_is_asked_for_again() -> None:
    """The sentinels give the replica two seconds to take over, and start no other failover while the primary lives."""
    with RedisSentinels() as world, ThreadPoolExecutor() as threads:
        primary, log = world.primary(), world.sentinels[0].log
        world.servers[1 - primary].pause()
        over = threads.submit(world.fail_over)
        wait_until(lambda: "-failover-abort-slave-timeout" in log())
        world.servers[1 - primary].wake()
        over.result()
        assert world.primary() == 1 - primary


@pytest.mark.fire
def test_a_failover_is_asked_for_when_a_sentinel_runs_again() -> None:
    with RedisSentinels() as world, ThreadPoolExecutor() as threads:
        primary = world.primary()
        for sentinel in world.sentinels:
            sentinel.kill()
        over = threads.submit(world.fail_over)
        for sentinel in world.sentinels:
            sentinel.restart()
        over.result()
        world.wait_for_switch(away_from=primary)


@pytest.mark.fire
def test_a_primary_that_hung_wakes_as_one(world: RedisSentinels, store: Store) -> None:
    """It executes what it was sent meanwhile, and gets no further requests."""
    header = committed(store, create(key()))
    world.wait_until_whole()
    primary = world.primary()
    old = world.servers[primary]
    old.pause()
    try:
        (result,) = store.commit_many([append(key(), header, marked(9, 9))])
        assert result.outcome is Outcome.UNKNOWN
        wait_until(lambda: isinstance(store.load_many([Load(key(), touch=True)])[0], Record))
        wait_until(lambda: world.primary() != primary)  # the sentinels tell each other
        first = committed(store, append(key(), header, marked(1, 0)))
    finally:
        old.wake()
    second = committed(store, append(key(), first, marked(1, 1)))
    world.wait_until_whole()
    assert log_of(store, key()) == marked(1, 0) + marked(1, 1)
    (record,) = store.load_many([Load(key(), touch=False)])
    assert isinstance(record, Record)
    assert record.header == second


def test_who_is_cut_off_from_the_sentinels_is_left(world: RedisSentinels, store: Store) -> None:
    """The primary answers as before, while the sentinels have elected another. Only they can tell."""
    header = committed(store, create(key()))
    world.wait_until_whole()  # nothing is lost then
    primary = world.primary()
    link = store._servers.link(0)  # type: ignore[attr-defined]
    world.fail_over()
    # The store is not called meanwhile, so no error can tell it.
    wait_until(lambda: store._servers.link(0) is not link)  # type: ignore[attr-defined]
    wait_until(lambda: world.primary() != primary)  # the sentinels tell each other
    committed(store, append(key(), header, inputs(1)))


def test_a_replica_does_not_answer_for_its_primary(world: RedisSentinels, store: Store) -> None:
    """An old address leads to a replica, whose data may be stale."""
    header = committed(store, create(key()))
    world.wait_until_whole()
    replica = 1 - world.primary()
    servers = store._servers  # type: ignore[attr-defined]
    known = servers._primary
    wrong = open_store(world.servers[replica].url, timeout_ms=TIMEOUT_MS)
    link = wrong._servers.link(0)  # type: ignore[attr-defined]
    with servers._lock:  # until the sentinels are asked again
        servers._primary = known._replace(link=link)
        (answer,) = store.load_many([Load(key(), touch=False)])
        assert isinstance(answer, StoreError)
        assert "primary" in str(answer)
        assert servers._freshness.is_stale
        servers._freshness.answered(servers._freshness.asking())
        with pytest.raises(StoreError, match="slave now"):
            store.scan("", "weather", "", "", 10)
        assert servers._freshness.is_stale
        servers._primary = known
    (record,) = store.load_many([Load(key(), touch=False)])
    assert isinstance(record, Record)
    assert record.header == header
    wrong.close()


def test_sentinels_that_are_gone_stop_nothing(world: RedisSentinels, store: Store) -> None:
    header = committed(store, create(key()))
    for sentinel in world.sentinels[:2]:
        sentinel.kill()
    world.sentinels[2].send_signal(signal.SIGSTOP)
    try:
        for number in range(3):
            header = committed(store, append(key(), header, marked(1, number)))
        fresh = open_store(world.url, timeout_ms=TIMEOUT_MS)
        with pytest.raises(StoreError, match=f"no sentinel reported the primary of '{SERVICE}': 127.0.0.1"):
            fresh.check()
        fresh.close()
        world.sentinels[0].restart()
        fresh = open_store(world.url, timeout_ms=TIMEOUT_MS)
        assert log_of(fresh, key()) == b"".join(marked(1, number) for number in range(3))
        fresh.close()
    finally:
        world.sentinels[2].send_signal(signal.SIGCONT)
        for sentinel in world.sentinels:
            if not sentinel.is_running:
                sentinel.restart()


def test_a_listing_goes_on_on_another_server(
    world: RedisSentinels, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellkeeper_service.store.redis.scan.SCAN_COUNT", 10)
    names = {f"p{number}" for number in range(200)}
    assert store.commit_many([create(key(name)) for name in names]) == [CommitResult(Outcome.COMMITTED)] * 200
    page = store.scan("", "weather", "p", "", 50)
    assert 0 < len(page.sessions) < 200
    world.wait_until_whole()
    world.fail_over()
    seen, cursor = {at.session for at, _ in page.sessions}, page.cursor
    while cursor:
        try:
            page = store.scan("", "weather", "p", cursor, 50)
        except StoreError:  # the connection to the old one
            continue
        seen |= {at.session for at, _ in page.sessions}
        cursor = page.cursor
    assert seen == names
    for wrong in ("x", "1", "x.y", f"x.{2**64}"):
        with pytest.raises(ValueError, match="cursor"):
            store.scan("", "weather", "", wrong, 10)


def test_the_check(world: RedisSentinels, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        store.check()
    assert "min-replicas-to-write" in caplog.text
    primary = world.primary()
    for number, words in ((primary, f"primary of '{SERVICE}'"), (1 - primary, "replica 127.0.0.1")):
        with world.servers[number].client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            with pytest.raises(StoreError, match=rf"{words}.*allkeys-lru.*noeviction"):
                store.check()
            client.config_set("maxmemory-policy", "noeviction")
    with world.servers[primary].client() as client:
        client.config_set("min-replicas-to-write", 1)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            store.check()
        assert "min-replicas" not in caplog.text
        client.config_set("min-replicas-to-write", 0)


def test_a_service_that_nobody_watches(world: RedisSentinels) -> None:
    store = open_store(world.url.replace(SERVICE, "other"), timeout_ms=TIMEOUT_MS)
    with pytest.raises(StoreError, match="does not know 'other'"):
        store.check()
    (result,) = store.commit_many([create(key())])
    assert result.outcome is Outcome.UNREACHED
    store.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+sentinel://localhost:1", "without the service name"),
        ("redis+sentinel://localhost:port/mine", "cannot be read"),
        ("redis+sentinel://localhost:1,/mine", "sentinel ''"),
        ("redis+sentinel:///mine", "sentinel ''"),
        ("redis+sentinel://localhost/mine/two", "database 'two'"),
    ],
)
def test_urls_that_cannot_be(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        open_store(url)


def test_a_url_in_full() -> None:
    url = SentinelUrl.read("rediss+sentinel://u:p@a,[::1]:2/mine/3?ssl_ca_certs=x.pem&sentinel_password=s/s")
    assert [str(at) for at in url.sentinels] == ["a:26379", "[::1]:2"]
    assert url.service == "mine"
    assert url.of_server(url.sentinels[1]) == "rediss://u:p@[::1]:2/3?ssl_ca_certs=x.pem"
    assert url.of_sentinel(url.sentinels[0]) == "rediss://:s%2Fs@a:26379?ssl_ca_certs=x.pem"


def test_sentinels_have_no_database_and_do_not_get_the_servers_login() -> None:
    url = SentinelUrl.read("redis+sentinel://a/mine?db=3&username=u&password=p&client_name=c")
    assert url.of_sentinel(url.sentinels[0]) == "redis://a:26379?client_name=c"
    assert url.of_server(url.sentinels[0]) == "redis://a:26379/0?db=3&username=u&password=p&client_name=c"


def test_the_watch_begins_with_the_check(world: RedisSentinels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server checks its store at the start, and may make no call that fails for weeks."""
    asked: list[Link] = []

    def ask(link: Link, service: str) -> View:
        asked.append(link)
        return ask_view(link, service)

    monkeypatch.setattr("cellkeeper_service.store.redis.sentinel.ask_view", ask)
    monkeypatch.setattr("cellkeeper_service.store.redis.sentinel.WATCH_S", 0.001)
    watched = Sentinel(world.url, TIMEOUT_MS)
    watched.check(0)
    checked = len(asked)
    wait_until(lambda: len(asked) > checked)
    watched.close()


def test_the_watch_goes_on_after_an_unforeseen_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[object] = []

    def ask(*_: object) -> NoReturn:
        asked.append(None)
        raise StoreError("not there") if len(asked) == 1 else RuntimeError("unforeseen")

    monkeypatch.setattr("cellkeeper_service.store.redis.sentinel.ask_view", ask)
    monkeypatch.setattr("cellkeeper_service.store.redis.sentinel.WATCH_S", 0.001)
    watched = Sentinel("redis+sentinel://127.0.0.1:26379/records", TIMEOUT_MS)
    watched.refresh()
    wait_until(lambda: len(asked) > 3)
    watched.close()
    assert "the sentinels could not be asked" in caplog.text
