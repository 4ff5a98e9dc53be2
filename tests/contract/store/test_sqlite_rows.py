"""Which rows a SQLite store keeps: none of what is replaced or deleted, and expired ones until they are swept."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from cellkeeper_service.domain.store import CommitResult, Delete, Load, Outcome
from cellkeeper_service.store.sqlite.store import SWEEP_RECORDS, SqliteStore

from tests.contract.store.records import append, committed, create, generation, inputs, key, replace
from tests.contract.store.sqlite_rows import rows


def test_nothing_is_left_behind(path: Path, sqlite_store: SqliteStore) -> None:
    first = committed(sqlite_store, create(key(), log=inputs(1)))
    second = committed(sqlite_store, append(key(), first, inputs(2)))
    assert rows(path, "chunks") == 2
    committed(sqlite_store, replace(key(), second, b"state"))
    tables = ("records", "checkpoints", "chunks")
    assert [rows(path, table) for table in tables] == [1, 1, 0]
    committed(sqlite_store, create(key("gone"), seed=5, log=inputs(1)))
    sqlite_store.delete_many([Delete(key("gone"), generation(5))])
    assert [rows(path, table) for table in tables] == [1, 1, 0]


def test_expired_rows_are_swept_a_few_at_a_time(path: Path) -> None:
    clock = [1_000_000]
    with closing(SqliteStore(path, clock_ms=lambda: clock[0])) as store:
        count = 2 * SWEEP_RECORDS + 10
        store.commit_many([create(key(f"s{n}"), log=inputs(n), ttl_ms=1000) for n in range(count)])
        committed(store, create(key("kept"), ttl_ms=5000))
        clock[0] += 1000
        seen = []
        header = create(key("kept"), ttl_ms=5000).header
        for _ in range(3):
            header = committed(store, append(key("kept"), header, inputs(1)))
            seen.append(rows(path, "records"))
        assert seen == [count - SWEEP_RECORDS + 1, count - 2 * SWEEP_RECORDS + 1, 1]
        assert rows(path, "checkpoints") == 1


def test_an_expired_record_that_is_not_swept_yet_takes_no_commit(path: Path) -> None:
    """It is not there, whether or not its row is."""
    clock = [1_000_000]
    with closing(SqliteStore(path, clock_ms=lambda: clock[0])) as store:
        store.commit_many([create(key(f"s{n}"), log=inputs(n), ttl_ms=1000) for n in range(2 * SWEEP_RECORDS)])
        last = committed(store, create(key(), log=inputs(1), ttl_ms=1001))
        clock[0] += 1001
        assert store.commit_many([append(key(), last, inputs(2))]) == [CommitResult(Outcome.CONFLICT)]
        assert rows(path, "records") > 1  # the sweep had not come to it
        assert store.load_many([Load(key(), touch=False)]) == [None]


def test_the_ttl_is_written_only_below_nine_tenths(path: Path) -> None:
    clock = [1_000_000]

    def expires_ms() -> int:
        with closing(sqlite3.connect(path)) as connection:
            return int(connection.execute("SELECT expires_ms FROM records").fetchone()[0])

    with closing(SqliteStore(path, clock_ms=lambda: clock[0])) as store:
        header = committed(store, create(key(), ttl_ms=1000))
        for use in ("commit", "load"):
            written = clock[0] + 1000
            for elapsed_ms, expected in ((100, written), (101, clock[0] + 1101)):
                clock[0] = written - 1000 + elapsed_ms
                if use == "load":
                    store.load_many([Load(key(), touch=False)])
                    assert expires_ms() == written
                    store.load_many([Load(key(), touch=True)])
                else:
                    header = committed(store, append(key(), header, inputs(1)))
                assert expires_ms() == expected
