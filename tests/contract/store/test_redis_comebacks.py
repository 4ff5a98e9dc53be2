"""Writes that power cuts brought back, and what clients were told in between (docs/adr/203), on a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import COMMITTED, Commit, Delete, Load, Outcome, Store
from cellkeeper_service.store.open import open_store

from testing.redis_server import RedisServer, wait_until
from tests.contract.store.records import HOUR_MS, append, committed, create, inputs, key, replace
from tests.contract.store.redis_power_cuts import aof, command_starts, keeps_half_transactions

OTHER = "zz"  # written after `pump-17`, so a cut takes this one


@pytest.fixture
def server() -> Iterator[RedisServer]:
    if not keeps_half_transactions():
        pytest.skip("this server brings nothing back")
    with RedisServer() as server:
        yield server


@contextmanager
def opened(server: RedisServer) -> Iterator[Store]:
    with closing(open_store(server.url, timeout_ms=10_000)) as store:
        yield store


def read(store: Store, session: str = "pump-17") -> Record:
    (record,) = store.load_many([Load(key(session), touch=False)])
    assert isinstance(record, Record), record
    return record


def at(store: Store, session: str = "pump-17") -> Header:
    return read(store, session).header


def cut(server: RedisServer, store: Store, *commits: Commit) -> None:
    """Cuts the power during the last of these writes: Redis restarts without any of them.

    Those before it stay in the file after an open MULTI.
    """
    begin = aof(server).stat().st_size
    assert {one.outcome for one in store.commit_many(commits)} == {Outcome.COMMITTED}
    server.kill()
    content = aof(server).read_bytes()
    multi = content.index(b"MULTI", begin)
    starts = [start for start in command_starts(content) if start > multi]
    aof(server).write_bytes(content[: starts[len(commits) - 1] + 5])
    server.restart()


def restart(server: RedisServer) -> None:
    server.kill()
    server.restart()


def ends_the_transaction(store: Store) -> None:
    """Writes another record, as a connection's first write."""
    committed(store, append(key(OTHER), at(store, OTHER), inputs(9)))


def cut_in_the_second_step(server: RedisServer) -> Header:
    """Commits the first step; cuts the file within the transaction that has the second. Returns the first's header."""
    with opened(server) as store:
        start = committed(store, create(key(), log=inputs(1)))
        other = committed(store, create(key(OTHER)))
        cut(server, store, append(key(), start, inputs(2)), append(key(OTHER), other, inputs(2)))
    return start


def test_what_came_back_and_was_told_stays(server: RedisServer) -> None:
    """Two cuts leave two entries for the same step. The first comes back and is told; then the second comes back."""
    start = cut_in_the_second_step(server)
    with opened(server) as store:
        ends_the_transaction(store)
        cut(server, store, append(key(), start, inputs(3)), append(key(OTHER), at(store, OTHER), inputs(3)))
    with opened(server) as store:
        told = read(store)
        assert told.log == inputs(1) + inputs(2)
        ends_the_transaction(store)
    restart(server)
    with opened(server) as store:
        assert read(store) == told


def test_a_checkpoint_that_came_back_and_was_told_stays(server: RedisServer) -> None:
    with opened(server) as store:
        start = committed(store, create(key(), log=inputs(1)))
        other = committed(store, create(key(OTHER)))
        cut(server, store, replace(key(), start, b"state 1"), append(key(OTHER), other, inputs(2)))
    with opened(server) as store:
        ends_the_transaction(store)
        cut(server, store, append(key(), start, inputs(3)), append(key(OTHER), at(store, OTHER), inputs(3)))
    with opened(server) as store:
        told = read(store)
        assert told.checkpoint == b"state 1"
        ends_the_transaction(store)
    restart(server)
    with opened(server) as store:
        assert read(store) == told


def test_a_session_that_came_back_and_was_told_stays(server: RedisServer) -> None:
    with opened(server) as store:
        other = committed(store, create(key(OTHER)))
        cut(server, store, create(key(), log=inputs(1)), append(key(OTHER), other, inputs(2)))
    with opened(server) as store:
        ends_the_transaction(store)
        cut(server, store, create(key(), seed=2), append(key(OTHER), at(store, OTHER), inputs(3)))
    with opened(server) as store:
        told = read(store)
        assert told.log == inputs(1)
        ends_the_transaction(store)
    restart(server)
    with opened(server) as store:
        assert read(store) == told


def test_what_was_read_does_not_come_back_later(server: RedisServer) -> None:
    """A client that was told, in the run after a cut, that a step is missing must still be right in the next run."""
    start = cut_in_the_second_step(server)
    with opened(server) as store:
        assert at(store) == start
        ends_the_transaction(store)
    restart(server)
    with opened(server) as store:
        assert at(store) == start


def test_the_first_reading_of_a_run_ends_what_a_cut_left(server: RedisServer) -> None:
    """A client only reads what came back. It must not be misled, even if nothing else was written in that run."""
    start = cut_in_the_second_step(server)
    with opened(server) as store:
        ends_the_transaction(store)
        cut(server, store, append(key(), start, inputs(3)), append(key(OTHER), at(store, OTHER), inputs(3)))
    with opened(server) as store:
        told = read(store)
    restart(server)
    with opened(server) as store:
        assert read(store) == told
        ends_the_transaction(store)
    restart(server)
    with opened(server) as store:
        assert read(store) == told


def test_a_deleted_session_does_not_come_back(server: RedisServer) -> None:
    """The delete is a connection's first write, after a transaction that a cut left open in the file."""
    start = cut_in_the_second_step(server)
    with opened(server) as store:
        assert store.delete_many([Delete(key(), start.position.generation)]) == [COMMITTED]
    restart(server)
    with opened(server) as store:
        assert store.load_many([Load(key(), touch=False)]) == [None]


def test_a_server_that_lost_the_race_trims_nothing_of_another_run(server: RedisServer) -> None:
    """Two servers made the same checkpoint, and one sends it after Redis restarted, after an entry that a cut left."""
    with opened(server) as store:
        start = committed(store, create(key(), log=inputs(1)))
        other = committed(store, create(key(OTHER)))
        checkpoint = replace(key(), start, b"state 1", inputs(2))
        header = committed(store, checkpoint)
        with server.client() as client:  # as if that server had been killed before its trim
            (name,) = client.keys("*weather*pump-17*")
            client.lpush(name, "of", "the", "checkpoint", "before")
        cut(server, store, append(key(), header, inputs(3)), append(key(OTHER), other, inputs(3)))
    with opened(server) as store:
        (result,) = store.commit_many([checkpoint])
        assert result.outcome is Outcome.CONFLICT
        told = read(store)
        ends_the_transaction(store)
    restart(server)
    with opened(server) as store:
        found = read(store)
        assert found == told or found.log == told.log + inputs(3)


def test_a_record_is_confirmed_once_a_run(server: RedisServer) -> None:
    """Reads do not make a record grow."""
    with opened(server) as store, server.client() as client:
        committed(store, create(key(), log=inputs(1)))
        (name,) = client.keys("*")
        for _ in range(3):
            read(store)
        assert client.llen(name) == 4, "checkpoint, inputs, base, and what ends a transaction that a cut may have left"
    restart(server)
    with opened(server) as one, opened(server) as two, server.client() as client:
        read(one)
        length = client.llen(name)
        assert length == 6, "a whole transaction once more"
        for store in (one, two, one):
            read(store)
        assert client.llen(name) == length


def test_a_checkpoint_that_is_a_connections_first_write_is_trimmed_too(server: RedisServer) -> None:
    with opened(server) as store:
        start = committed(store, create(key(), log=inputs(1)))
    with opened(server) as store, server.client() as client:
        committed(store, replace(key(), start, b"state 1", inputs(2)))
        (name,) = client.keys("*")
        assert client.llen(name) == 4
        assert read(store).log == inputs(2)


def test_what_an_operator_does_survives_a_crash(server: RedisServer) -> None:
    """Redis is killed during the BGREWRITEAOF that docs/operations.md advises."""
    cut_in_the_second_step(server)
    with server.client() as client:
        client.eval("redis.call('SET', KEYS[1], '') redis.call('DEL', KEYS[1])", 1, "transaction")
        client.config_set("rdb-key-save-delay", 1_000_000)  # microseconds: it is killed before it is done
        client.bgrewriteaof()
        wait_until(lambda: client.info("persistence")["aof_rewrite_in_progress"])
        wait_until(lambda: len(list((server.folder / "appendonlydir").glob("*.incr.aof"))) == 2)
    restart(server)
    with opened(server) as store:
        assert read(store).log in (inputs(1), inputs(1) + inputs(2))


def test_a_server_goes_on_from_what_came_back_without_reading(server: RedisServer) -> None:
    """Two servers have the session in memory, and cuts took an entry of each.

    One server knows the first entry, and continues from it when it is back, after the other server's entry.
    """
    with opened(server) as store:
        start = committed(store, create(key(), log=inputs(1)))
        other = committed(store, create(key(OTHER)))
        first = append(key(), start, inputs(2))
        cut(server, store, first, append(key(OTHER), other, inputs(2)))
    with opened(server) as store:
        ends_the_transaction(store)
        cut(server, store, append(key(), start, inputs(3, 2)), append(key(OTHER), at(store, OTHER), inputs(3)))
    with opened(server) as store:
        second = append(key(), first.header, inputs(4))
        committed(store, second, append(key(), second.header, inputs(5)))
        told = read(store)
        assert told.log == inputs(1) + inputs(2) + inputs(4) + inputs(5)
    restart(server)
    with opened(server) as store:
        assert read(store) == told


@pytest.mark.parametrize("ttl_ms", [0, HOUR_MS])
def test_a_ttl_that_is_not_asked_for_any_more_is_gone_whatever_is_read_meanwhile(
    server: RedisServer, ttl_ms: int
) -> None:
    """Reads refresh TTLs, even between the calls of a commit that changes one."""
    with opened(server) as store, opened(server) as reader, server.client() as client:
        many = [key(f"many-{number}") for number in range(300)]
        headers = {at: committed(store, create(at, ttl_ms=HOUR_MS // 2)) for at in [key(), *many]}
        done = threading.Event()

        def read_on() -> None:
            while not done.is_set():
                reader.load_many([Load(key(), touch=True)])

        thread = threading.Thread(target=read_on)
        thread.start()
        try:
            for turn in range(20):
                lasting = ttl_ms if turn % 2 == 0 else HOUR_MS // 2
                commits = [append(at, headers[at], inputs(turn), ttl_ms=lasting) for at in headers]
                assert {one.outcome for one in store.commit_many(commits)} == {Outcome.COMMITTED}
                headers = {commit.key: commit.header for commit in commits}
                (name,) = client.keys("*weather:pump-17")
                left = client.pttl(name)
                assert left == -1 if lasting == 0 else 0 < left <= lasting
        finally:
            done.set()
            thread.join()


def test_a_longer_ttl_never_leaves_the_shorter_one(server: RedisServer) -> None:
    """The power fails between the commit and its TTL."""
    with opened(server) as store, server.client() as client:
        start = committed(store, create(key(), ttl_ms=5_000))
        committed(store, append(key(), start, inputs(1), ttl_ms=HOUR_MS))
        content = aof(server).read_bytes()
        server.kill()
        last = [begin for begin in command_starts(content) if b"PEXPIREAT" in content[begin : begin + 30]][-1]
        aof(server).write_bytes(content[:last])
        server.restart()
        (name,) = client.keys("*")
        assert client.pttl(name) == -1
