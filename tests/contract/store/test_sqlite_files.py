"""Which files the SQLite store takes: its own, those of an earlier layout, and no others."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import COMMITTED, DamagedRecord, Load, Outcome, StoreError
from cellkeeper_service.store.sqlite import schema as sqlite_schema
from cellkeeper_service.store.sqlite.store import SqliteStore

from tests.contract.store.records import committed, create, inputs, key, replace


def test_records_are_there_after_closing(path: Path, sqlite_store: SqliteStore) -> None:
    commit = create(key(), log=inputs(1, 2))
    committed(sqlite_store, commit)
    sqlite_store.close()
    with closing(SqliteStore(path)) as again:
        assert again.load_many([Load(key(), False)]) == [Record(commit.header, b"state 0", inputs(1, 2))]


def test_a_closed_store_says_so(sqlite_store: SqliteStore) -> None:
    sqlite_store.close()
    assert isinstance(sqlite_store.load_many([Load(key(), False)])[0], StoreError)
    assert sqlite_store.commit_many([create(key())])[0].outcome is Outcome.REFUSED
    with pytest.raises(StoreError):
        sqlite_store.scan("", "weather", "", "", 10)


def test_a_file_of_another_layout(path: Path, sqlite_store: SqliteStore) -> None:
    sqlite_store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {sqlite_schema.SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match="has layout 5, expected 4"):
        SqliteStore(path)


def test_a_file_of_the_layout_before_goes_on(
    path: Path, sqlite_store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Checkpoints of layout 1 have no checksum: they are read as they are, and later ones get one.

    Headers of layouts 1 and 2 have none either: all of them get one at once.
    """
    names = [f"pump-{index}" for index in range(8)]
    headers = {name: committed(sqlite_store, create(key(name), log=inputs(1, 2))) for name in names}
    sqlite_store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (
            "CREATE TABLE before (record INTEGER PRIMARY KEY, state BLOB NOT NULL)",
            "INSERT INTO before SELECT record, state FROM checkpoints",
            "DROP TABLE checkpoints",
            "ALTER TABLE before RENAME TO checkpoints",
            "ALTER TABLE records RENAME COLUMN checked_header TO header",
            "UPDATE records SET header = CAST(substr(header, 1, 132) AS BLOB)",
            "PRAGMA user_version = 1",
        ):
            connection.execute(statement)
    with closing(sqlite3.connect(path)) as older:
        written = "UPDATE records SET header = header"
        older.execute(written)
        older.rollback()
        with caplog.at_level(logging.INFO):
            stores = [SqliteStore(path), SqliteStore(path)]
        assert caplog.text.count(f"sqlite: converted '{path}' from layout 1 to 4; ") == 1  # nobody can go back
        with pytest.raises(sqlite3.OperationalError, match="no such column: header"):  # as in a running server
            older.execute(written)
    for store in stores:
        found = store.load_many([Load(key(name), True) for name in names])
        assert found == [Record(headers[name], b"state 0", inputs(1, 2)) for name in names]
    results = stores[0].commit_many([replace(key(name), headers[name], b"state 1", inputs(3)) for name in names])
    assert results == [COMMITTED] * 8
    committed(stores[1], create(key("new")))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM checkpoints WHERE sums IS NULL").fetchone() == (0,)
        connection.execute("UPDATE checkpoints SET state = CAST('state 2' AS BLOB) WHERE record = 1")
        connection.commit()
    first, *others = stores[0].load_many([Load(key(name), True) for name in names])
    assert isinstance(first, DamagedRecord)
    assert "checksum" in str(first)
    assert all(isinstance(record, Record) and record.checkpoint == b"state 1" for record in others)
    for store in stores:
        store.close()


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and long enough to be looked at" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt"):
        SqliteStore(path)
    with pytest.raises(StoreError, match=r"notes\.txt"):
        SqliteStore(path / "below.db")
    with pytest.raises(StoreError, match="cannot open"):
        SqliteStore(tmp_path)


@pytest.mark.parametrize("transaction", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_file_that_another_program_has_locked(path: Path, transaction: str) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(transaction)
        with pytest.raises(StoreError, match=r"database is locked; another program .* end that program"):
            SqliteStore(path, timeout_ms=200)


def test_a_file_that_is_damaged_from_its_beginning(path: Path) -> None:
    SqliteStore(path).close()
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * 100 + data[200:])
    with pytest.raises(StoreError, match="malformed; restore it from a backup"):
        SqliteStore(path)
