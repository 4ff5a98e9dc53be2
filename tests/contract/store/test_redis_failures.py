"""Redis killed, unreachable, paused, full or read-only: the reported outcome is what happened."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest
import redis
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import Delete, Load, Outcome, Store, StoreError
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis.failures import Refused, Unreached, refusal
from cellkeeper_service.store.redis.keys import redis_key
from cellkeeper_service.store.redis.wire import Wire

from testing.redis_server import RedisServer
from tests.contract.store.polled import PolledStore
from tests.contract.store.records import append, committed, create, generation, inputs, key, log_of, replace
from tests.contract.store.worker import marked

TIMEOUT_MS = 1000  # it passes where the server does not answer, and not where it does, on a busy machine either
PATIENCE_MS = 20_000  # where it must not pass
WAIT_S = 10.0
LARGE_BYTES = 40_000_000  # more than the socket buffers of both sides hold


class Opener(Protocol):
    def __call__(self, url: str, *, timeout_ms: int = 1000, wait_replicas: int = 0) -> Store: ...


def open_polled(url: str, *, timeout_ms: int = 1000, wait_replicas: int = 0) -> Store:
    return PolledStore(open_store(url, timeout_ms=timeout_ms, wait_replicas=wait_replicas))


@pytest.fixture(params=[open_store, open_polled], ids=["blocking", "polled"])
def opened(request: pytest.FixtureRequest) -> Opener:
    """Opens a store; commits are tested both ways."""
    opener: Opener = request.param
    return opener


@pytest.fixture
def own_store(own_redis: RedisServer, opened: Opener) -> Iterator[Store]:
    store = opened(own_redis.url, timeout_ms=PATIENCE_MS)
    yield store
    store.close()


def wait_for(condition: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < WAIT_S, "it never came true"


def configure(server: RedisServer, name: str, value: str) -> None:
    with server.client() as client:
        client.config_set(name, value)


def test_a_killed_server_keeps_what_it_acknowledged(own_redis: RedisServer, opened: Opener) -> None:
    store = opened(own_redis.url, timeout_ms=5000)
    header = committed(store, create(key()))

    def append_until_it_fails(before: Header) -> int:
        acknowledged = 0
        while True:
            commit = append(key(), before, marked(1, acknowledged))
            (result,) = store.commit_many([commit])
            if result.outcome is not Outcome.COMMITTED:
                assert result.outcome in (Outcome.UNKNOWN, Outcome.UNREACHED)
                return acknowledged
            before, acknowledged = commit.header, acknowledged + 1

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(append_until_it_fails, header)
        wait_for(lambda: len(log_of(store, key())) > 400)  # so 100 are acknowledged
        own_redis.kill()
        acknowledged = future.result(timeout=30)
    own_redis.restart()
    log = log_of(store, key())
    assert acknowledged >= 100
    assert len(log) // 4 in (acknowledged, acknowledged + 1)  # the last one may not have been reported in time
    assert log == b"".join(marked(1, number) for number in range(len(log) // 4))
    store.close()


def test_a_server_that_is_not_there_is_unreached(own_redis: RedisServer, own_store: Store) -> None:
    header = committed(own_store, create(key()))
    own_redis.kill()
    (result,) = own_store.commit_many([append(key(), header, inputs(1))])
    assert result.outcome is Outcome.UNREACHED
    assert "cannot be reached" in result.message
    assert own_store.delete_many([Delete(key(), generation(1))])[0].outcome is Outcome.UNREACHED
    assert isinstance(own_store.load_many([Load(key(), False)])[0], StoreError)
    with pytest.raises(StoreError, match="cannot be reached"):
        own_store.scan("", "weather", "", "", 10)
    with pytest.raises(StoreError, match="cannot be reached"):
        own_store.check()
    own_redis.restart()
    committed(own_store, append(key(), header, inputs(1)))


def test_a_server_that_is_killed_while_commands_are_sent_is_unknown(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = open_store(own_redis.url, timeout_ms=TIMEOUT_MS)
    link = store._servers.link(0)
    take = link.take

    def take_and_kill() -> Wire:
        wire: Wire = take()
        own_redis.kill()
        return wire

    monkeypatch.setattr(link, "take", take_and_kill)
    (result,) = store.commit_many([create(key(), checkpoint=bytes(LARGE_BYTES))])
    assert result.outcome is Outcome.UNKNOWN
    assert "Redis did not answer: " in result.message
    store.close()


def test_a_paused_server_is_unknown_and_may_still_do_it(
    own_redis: RedisServer, own_store: Store, opened: Opener
) -> None:
    hurried = opened(own_redis.url, timeout_ms=TIMEOUT_MS)
    header = committed(hurried, create(key()))
    late = append(key(), header, inputs(1))
    own_redis.pause()
    began = time.monotonic()
    (result,) = hurried.commit_many([late])
    waited_s = time.monotonic() - began
    own_redis.wake()
    assert result.outcome is Outcome.UNKNOWN
    assert TIMEOUT_MS / 1000 * 0.9 <= waited_s < 3 * TIMEOUT_MS / 1000
    wait_for(lambda: log_of(own_store, key()) == inputs(1))  # the late script ran, and nobody received its reply
    assert own_store.commit_many([late])[0] == (Outcome.CONFLICT, late.header, "")
    committed(hurried, append(key(), late.header, inputs(2)))
    assert log_of(own_store, key()) == inputs(1) + inputs(2)
    hurried.close()


def test_no_answer_to_a_handshake_is_not_a_commit(own_redis: RedisServer, opened: Opener) -> None:
    with own_redis.client() as client:
        client.config_set("requirepass", "secret")
    store = opened(f"redis://:secret@127.0.0.1:{own_redis.port}/0", timeout_ms=TIMEOUT_MS)
    own_redis.pause()
    (result,) = store.commit_many([create(key())])
    own_redis.wake()
    assert result.outcome is Outcome.UNREACHED  # the commit itself was never sent
    committed(store, create(key()))
    store.close()


def test_a_wrong_password_reaches_nothing(own_redis: RedisServer, own_store: Store) -> None:
    configure(own_redis, "requirepass", "secret")
    assert own_store.commit_many([create(key())])[0].outcome is Outcome.UNREACHED
    assert isinstance(own_store.load_many([Load(key(), False)])[0], StoreError)
    with pytest.raises(StoreError, match="Authentication"):
        own_store.check()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis.exceptions.BusyLoadingError("LOADING"), Unreached),
        (redis.exceptions.ClusterDownError("CLUSTERDOWN"), Unreached),
        (redis.exceptions.ReadOnlyError("READONLY"), Refused),
        (redis.exceptions.OutOfMemoryError("OOM"), Refused),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_a_server_that_serves_nothing_is_not_one_that_refuses_to_write(error: Exception, kind: type[Refused]) -> None:
    assert type(refusal(error)) is kind


@pytest.mark.parametrize(
    ("form", "what_to_do"),
    [
        ("rediss://127.0.0.1:{}/0", "rediss:// only if Redis serves TLS"),
        ("redis://:secret@127.0.0.1:{}/0", "remove the password from the store's URL"),
        ("redis+cluster://127.0.0.1:{}", "it is in no cluster; name it by redis://"),
        ("redis+sentinel://127.0.0.1:{}/records", "it is no sentinel"),
        ("unix:///nowhere.sock?db={}", "start Redis, or correct the path of its socket"),
        ("redis://nowhere.invalid:{}", "start Redis, or correct the host"),
    ],
)
def test_a_wrong_url_says_what_to_do(redis_server: RedisServer, form: str, what_to_do: str) -> None:
    store = open_store(form.format(redis_server.port), timeout_ms=TIMEOUT_MS)
    with pytest.raises(StoreError, match=what_to_do):
        store.check()
    store.close()


def test_something_else_than_redis_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as thread:
        store = open_store(f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout_ms=5000)
        asked = thread.submit(store.check)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with pytest.raises(StoreError, match="what answers there is not Redis"):
                asked.result()
        store.close()


def test_a_full_server_refuses_and_writes_nothing(own_redis: RedisServer, own_store: Store) -> None:
    headers = {
        name: committed(own_store, create(key(name), log=inputs(1), ttl_ms=60_000)) for name in ("a", "b", "c", "d")
    }
    configure(own_redis, "maxmemory", "1")  # less than an empty server uses
    results = own_store.commit_many(
        [
            create(key("a"), seed=9),
            append(key("a"), headers["a"], inputs(2)),
            replace(key("b"), headers["b"], b"new", inputs(3)),
            create(key("new")),
        ]
    )
    assert [result.outcome for result in results] == [Outcome.CONFLICT, *[Outcome.REFUSED] * 3]
    assert all("OOM" in result.message for result in results[1:])
    assert own_store.load_many([Load(key(name), True) for name in ("a", "b", "new")]) == [
        Record(headers["a"], b"state 0", inputs(1)),
        Record(headers["b"], b"state 0", inputs(1)),
        None,
    ]
    assert own_store.delete_many([Delete(key("d"), generation(1))])[0].outcome is Outcome.COMMITTED
    configure(own_redis, "maxmemory", "0")
    committed(own_store, append(key("a"), headers["a"], inputs(2)), create(key("new")))


def test_a_server_that_fills_up_never_leaves_half_a_record(own_redis: RedisServer, own_store: Store) -> None:
    with own_redis.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1_000_000)
    outcomes: list[Outcome] = []
    states = {f"s{n}": bytes((n % 256,)) * 10_000 for n in range(300)}
    names = list(states)
    for first in range(0, len(names), 10):
        commits = [create(key(name), checkpoint=states[name], log=inputs(1)) for name in names[first : first + 10]]
        outcomes += [result.outcome for result in own_store.commit_many(commits)]
    assert set(outcomes) == {Outcome.COMMITTED, Outcome.REFUSED}
    loads = [Load(key(name), False) for name in names]
    for name, outcome, record in zip(names, outcomes, own_store.load_many(loads), strict=True):
        if outcome is Outcome.COMMITTED:
            assert record == Record(create(key(name), log=inputs(1)).header, states[name], inputs(1))
        else:
            assert record is None


@pytest.mark.parametrize(
    ("name", "value", "word"), [("replicaof", "127.0.0.1 1", "replica"), ("min-replicas-to-write", "1", "NOREPLICAS")]
)
def test_a_server_that_takes_no_writes(
    own_redis: RedisServer, own_store: Store, name: str, value: str, word: str
) -> None:
    header = committed(own_store, create(key()))
    with own_redis.client() as client:
        client.execute_command("REPLICAOF", *value.split()) if name == "replicaof" else client.config_set(name, value)
    (result,) = own_store.commit_many([append(key(), header, inputs(1))])
    assert result.outcome is Outcome.REFUSED
    assert word in result.message
    assert log_of(own_store, key()) == b""
    assert own_store.delete_many([Delete(key(), generation(1))])[0].outcome is Outcome.REFUSED


def test_a_user_without_a_right(own_redis: RedisServer, opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-config")
    store = opened(f"redis://app:pw@127.0.0.1:{own_redis.port}/0")
    store.check()  # works without CONFIG
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "-ltrim")
    header = committed(store, create(key()))
    with caplog.at_level(logging.WARNING):
        committed(store, replace(key(), header, b"new"))
    assert "did not trim" in caplog.text  # what it replaced cannot be trimmed
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "-rpush")
    (result,) = store.commit_many([create(key("other"))])
    assert result.outcome is Outcome.REFUSED
    assert result.message.endswith(
        (
            "give its user the rights in docs/security.md; ACL LOG shows which it lacks",
            "to run the 'rpush' command; give its user this right, see docs/security.md",  # Valkey names it
        )
    )
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "+rpush", "-evalsha")
    (result,) = store.commit_many([create(key("other"))])
    assert result.outcome is Outcome.REFUSED
    store.close()


def test_scripts_are_loaded_again(own_redis: RedisServer, own_store: Store) -> None:
    header = committed(own_store, create(key()))
    for number in range(2):
        with own_redis.client() as client:
            client.script_flush()
        header = committed(own_store, append(key(), header, inputs(number)))
    with own_redis.client() as client:
        client.script_flush()
    assert log_of(own_store, key()) == inputs(0) + inputs(1)
    with own_redis.client() as client:
        client.script_flush()
    assert own_store.delete_many([Delete(key(), generation(1))])[0].outcome is Outcome.COMMITTED


def test_too_few_replicas_is_unknown(own_redis: RedisServer, opened: Opener) -> None:
    waiting = opened(own_redis.url, timeout_ms=TIMEOUT_MS, wait_replicas=1)
    (result,) = waiting.commit_many([create(key())])
    assert result.outcome is Outcome.UNKNOWN
    assert "replicas" in result.message
    assert waiting.commit_many([create(key(), seed=2)])[0].outcome is Outcome.CONFLICT  # it was written
    found = waiting.load_many([Load(key(), True), Load(key("missing"), False)])
    assert all("replicas that have what was read: 0, expected 1" in str(error) for error in found), found
    waiting.close()


def test_a_replica_that_has_it(own_redis: RedisServer, opened: Opener) -> None:
    configure(own_redis, "repl-diskless-sync-delay", "0")
    waiting = opened(own_redis.url, timeout_ms=5000, wait_replicas=1)
    with RedisServer({"replicaof": f"127.0.0.1 {own_redis.port}"}) as replica:
        with replica.client() as client:
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
            committed(waiting, create(key()))
            assert client.exists(redis_key(key())) == 1
        with own_redis.client() as client:
            before = client.lrange(redis_key(key()), 0, -1)
            assert log_of(waiting, key()) == b""
            assert client.lrange(redis_key(key()), 0, -1) == before
            assert client.keys() == [redis_key(key())]  # nothing is left of what the load waited for
        with pytest.raises(StoreError, match="'slave'"):
            open_store(replica.url).check()
    waiting.close()


def test_what_no_replica_has_is_not_told(own_redis: RedisServer, opened: Opener) -> None:
    """Another server answers a retry from the record: that would acknowledge what a fail-over loses."""
    configure(own_redis, "repl-diskless-sync-delay", "0")
    with RedisServer({"replicaof": f"127.0.0.1 {own_redis.port}"}) as replica:
        patient = opened(own_redis.url, timeout_ms=10_000, wait_replicas=1)
        hurried = [opened(own_redis.url, timeout_ms=TIMEOUT_MS, wait_replicas=1) for _ in range(2)]
        with replica.client() as client:
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        header = committed(patient, create(key()))
        replica.pause()
        assert hurried[0].commit_many([append(key(), header, inputs(1))])[0].outcome is Outcome.UNKNOWN
        for store in hurried:
            (found,) = store.load_many([Load(key(), False)])
            assert "replicas that have what was read: 0, expected 1" in str(found)
        replica.wake()
        assert log_of(patient, key()) == inputs(1)
        configure(own_redis, "min-replicas-to-write", "2")  # nothing can be written that WAIT could wait for
        (found,) = patient.load_many([Load(key(), False)])
        assert "Redis does not say how many replicas have what was read: NOREPLICAS" in str(found)
        assert "see its min-replicas-to-write" in str(found)
        for store in (patient, *hurried):
            store.close()


def test_a_full_server_whose_replica_has_everything(own_redis: RedisServer, opened: Opener) -> None:
    """A load that waits for the replica must write, but sessions can still be read, and deleted to make room."""
    configure(own_redis, "repl-diskless-sync-delay", "0")
    waiting = opened(own_redis.url, timeout_ms=5000, wait_replicas=1)
    with RedisServer({"replicaof": f"127.0.0.1 {own_redis.port}"}) as replica:
        with replica.client() as client:
            wait_for(lambda: client.info("replication")["master_link_status"] == "up")
        header = committed(waiting, create(key(), log=inputs(1)))
        configure(own_redis, "maxmemory", "1mb")  # less than an empty server uses
        assert waiting.load_many([Load(key(), True)]) == [Record(header, b"state 0", inputs(1))]
        with own_redis.client() as client:
            assert client.keys() == [redis_key(key())]
        assert waiting.delete_many([Delete(key(), generation(1))])[0].outcome is Outcome.COMMITTED
        assert waiting.load_many([Load(key(), False)]) == [None]
    waiting.close()


def test_other_types_and_damage_fail_alone(own_redis: RedisServer, own_store: Store) -> None:
    names = ["whole", "string", "checkpoint only", "none of ours"]
    headers = {name: committed(own_store, create(key(name), log=inputs(1, 2))) for name in names}
    with own_redis.client() as client:
        client.set(redis_key(key("string")), b"x")
        client.rpop(redis_key(key("checkpoint only")))
        client.rpush(redis_key(key("none of ours")), b"")
    whole, *broken = own_store.load_many([Load(key(name), True) for name in names])
    assert whole == Record(headers["whole"], b"state 0", inputs(1, 2))
    assert all(isinstance(error, StoreError) for error in broken)
    results = own_store.commit_many([append(key(name), headers[name], inputs(3)) for name in names])
    assert [result.outcome for result in results] == [Outcome.COMMITTED, *[Outcome.CONFLICT] * 3]
    deletes = [Delete(key(name), generation(1)) for name in names]
    assert [result.outcome for result in own_store.delete_many(deletes)] == [Outcome.COMMITTED] * 4
