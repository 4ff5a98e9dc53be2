"""What can happen only to the SQLite store: full disks, other writers, killed processes."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Load, Outcome, StoreError
from cellkeeper_service.store.sqlite import schema as sqlite_schema
from cellkeeper_service.store.sqlite.store import SqliteStore

from tests.contract.store.records import append, committed, create, inputs, key, log_of
from tests.contract.store.worker import marked


def test_a_full_disk_refuses_the_whole_call(sqlite_store: SqliteStore) -> None:
    first = committed(sqlite_store, create(key("kept"), log=inputs(1, 2)))
    connection = sqlite_store._connection()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    results = sqlite_store.commit_many(
        [append(key("kept"), first, inputs(2)), create(key("large"), checkpoint=bytes(100_000)), create(key("small"))]
    )
    assert [result.outcome for result in results] == [Outcome.REFUSED] * 3
    assert "full" in results[0].message
    loads = [Load(key(session), True) for session in ("kept", "large", "small")]
    assert sqlite_store.load_many(loads) == [Record(first, b"state 0", inputs(1, 2)), None, None]
    connection.execute("PRAGMA max_page_count = 1000000")
    committed(sqlite_store, append(key("kept"), first, inputs(2)), create(key("large"), checkpoint=bytes(100_000)))


def test_a_read_only_file_refuses(sqlite_store: SqliteStore) -> None:
    first = committed(sqlite_store, create(key()))
    sqlite_store._connection().execute("PRAGMA query_only = 1")
    (result,) = sqlite_store.commit_many([append(key(), first, inputs(1))])
    assert result.outcome is Outcome.REFUSED
    assert "readonly" in result.message
    assert log_of(sqlite_store, key()) == b""
    with pytest.raises(StoreError, match="cannot write"):
        sqlite_store.check()


def test_another_writer_is_waited_for_then_refused(path: Path, sqlite_store: SqliteStore) -> None:
    first = committed(sqlite_store, create(key(), ttl_ms=60_000))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        (result,) = sqlite_store.commit_many([append(key(), first, inputs(1))])
        assert result.outcome is Outcome.REFUSED
        assert "locked" in result.message
        assert sqlite_store.load_many([Load(key(), True)]) == [Record(first, b"state 0", b"")]
        other.execute("ROLLBACK")
    committed(sqlite_store, append(key(), first, inputs(1)))


def test_other_threads_are_waited_for_then_refused(sqlite_store: SqliteStore) -> None:
    with sqlite_store._writing:
        (result,) = sqlite_store.commit_many([create(key())])
    assert result.outcome is Outcome.REFUSED
    assert "other threads kept writing for" in result.message
    committed(sqlite_store, create(key()))


def test_a_closed_store_opens_no_file(sqlite_store: SqliteStore) -> None:
    sqlite_store.close()
    with ThreadPoolExecutor(1) as thread:  # which has no connection yet
        (result,) = thread.submit(sqlite_store.commit_many, [create(key())]).result()
    assert result == (Outcome.REFUSED, None, "SQLite wrote nothing: the SQLite store is closed")


def test_a_file_is_tried_once_more_after_an_attempt_that_took_the_whole_timeout(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(sqlite_schema, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: None))

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *given: Any) -> sqlite3.Cursor:
            if statement == "PRAGMA journal_mode = WAL" and now[0] == 0.0:
                now[0] = 60.0
                raise sqlite3.OperationalError("database is locked")
            return super().execute(statement, *given)

    path.parent.mkdir(parents=True)
    connect = partial(sqlite3.connect, factory=Connection)
    monkeypatch.setattr(sqlite_schema, "sqlite3", SimpleNamespace(**{**vars(sqlite3), "connect": connect}))
    with closing(sqlite_schema.open_file(path, 1000, make=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_commit_is_synced(sqlite_store: SqliteStore) -> None:
    connection = sqlite_store._connection()
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_killed_process_leaves_what_it_acknowledged(path: Path, sqlite_store: SqliteStore) -> None:
    committed(sqlite_store, create(key()))
    acknowledged = 0
    for round_number in range(3):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.contract.store.worker", f"sqlite:{path}"], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            while acknowledged < 60 * (round_number + 1):
                line = process.stdout.readline()
                assert line, "the worker ended by itself"
                acknowledged = int(line)
            process.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
        log = log_of(sqlite_store, key())
        assert len(log) // 4 in (acknowledged, acknowledged + 1)  # the last one may not have been reported in time
        assert log == b"".join(marked(1, step) for step in range(len(log) // 4))
