"""What can happen only to the SQLite store: full disks, other writers, other files, killed processes."""

from __future__ import annotations

import logging
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import COMMITTED, CommitResult, DamagedRecord, Delete, Load, Outcome, StoreError
from cellkeeper_service.store.sqlite import schema as sqlite_schema
from cellkeeper_service.store.sqlite.store import SWEEP_RECORDS, SqliteStore

from tests.contract.store.records import append, committed, create, generation, inputs, key, log_of, replace
from tests.contract.store.worker import marked


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "er" / "sessions.db"


@pytest.fixture
def sqlite_store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, timeout_ms=200)
    yield store
    store.close()


def rows(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


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


def test_a_damaged_record_fails_alone(path: Path, sqlite_store: SqliteStore) -> None:
    for session in ("whole", "no state", "short log", "short header"):
        committed(sqlite_store, create(key(session), log=inputs(1, 2)))
    with closing(sqlite3.connect(path)) as connection:
        find = "(SELECT record FROM records WHERE session = ?)"
        connection.execute(f"DELETE FROM checkpoints WHERE record = {find}", (b"no state",))
        connection.execute(f"DELETE FROM chunks WHERE record = {find}", (b"short log",))
        connection.execute("UPDATE records SET checked_header = x'00' WHERE session = ?", (b"short header",))
        connection.commit()
    loads = [Load(key(session), True) for session in ("whole", "no state", "short log", "short header")]
    whole, *damaged = sqlite_store.load_many(loads)
    assert isinstance(whole, Record)
    for error in damaged:
        assert isinstance(error, StoreError)
        assert "damaged" in str(error)


@pytest.mark.parametrize("value", ["'text'", "7"])
def test_a_value_of_another_type_is_damage_to_its_session_alone(
    path: Path, sqlite_store: SqliteStore, value: str
) -> None:
    for session in ("damaged", "whole"):
        committed(sqlite_store, create(key(session), log=inputs(1, 2)))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE checkpoints SET state = {value} WHERE record = 1")
        connection.commit()
    damaged, whole = sqlite_store.load_many([Load(key(session), True) for session in ("damaged", "whole")])
    assert isinstance(damaged, DamagedRecord)
    assert isinstance(whole, Record)


def test_a_session_whose_expiry_is_no_number_never_expires(path: Path, sqlite_store: SqliteStore) -> None:
    headers = {name: committed(sqlite_store, create(key(name), log=inputs(1))) for name in ("damaged", "whole")}
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE records SET expires_ms = 'soon' WHERE record = 1")
        connection.commit()
    assert all(isinstance(one, Record) for one in sqlite_store.load_many([Load(key(name), True) for name in headers]))
    commits = [append(key(name), header, inputs(2)) for name, header in headers.items()]
    assert sqlite_store.commit_many(commits) == [COMMITTED] * 2
    assert sqlite_store.delete_many([Delete(key("damaged"), headers["damaged"].position.generation)]) == [COMMITTED]


def test_a_damaged_page_concerns_only_its_sessions(path: Path) -> None:
    """They are damaged, not a store that does not answer, whoever else is in the call. Commits and deletions of the
    others succeed beside theirs; and once they have expired, removing them fails without failing anybody's commit."""
    clock, ids = [1_800_000_000_000], range(40)
    store = SqliteStore(path, clock_ms=lambda: clock[0])
    chunk = 250  # so many steps that a few chunks fill a page
    headers = [
        committed(store, create(key(str(n)), seed=n, log=inputs(n, chunk), ttl_ms=1000 if n == 20 else 0)) for n in ids
    ]
    store.close()
    data, index_leaf = bytearray(path.read_bytes()), 0x0A
    (page,) = (
        at for at in range(0, len(data), 4096) if data[at] == index_leaf and inputs(20, 9) in data[at : at + 4096]
    )
    hit = {n for n in ids if inputs(n, 9) in data[page : page + 4096]}
    assert 20 in hit
    assert 0 not in hit
    data[page : page + 8] = bytes(8)
    path.write_bytes(data)

    store = SqliteStore(path, clock_ms=lambda: clock[0])
    found = store.load_many([Load(key(str(n)), True) for n in ids])
    damaged = {n for n in ids if isinstance(found[n], DamagedRecord)}
    assert hit <= damaged <= hit | {min(hit) - 1, max(hit) + 1}  # the end of a log may show on the next page only
    assert all(isinstance(found[n], Record) for n in ids if n not in damaged)

    results = store.commit_many([append(key(str(n)), headers[n], inputs(n + 1)) for n in ids])
    refused = {n for n in ids if results[n] != COMMITTED}
    assert refused
    assert refused <= damaged
    for n in refused:
        assert results[n].outcome is Outcome.REFUSED
        assert "malformed" in results[n].message
    assert all(
        log_of(store, key(str(n))) == inputs(n, chunk) + inputs(n + 1) for n in ids if n not in refused | damaged
    )
    deletes = [Delete(key(str(n)), headers[n].position.generation) for n in (20, 38, 39)]
    assert [result.outcome for result in store.delete_many(deletes)] == [
        Outcome.REFUSED,
        Outcome.COMMITTED,
        Outcome.COMMITTED,
    ]

    clock[0] += 10_000
    store.check()
    committed(store, append(key("0"), append(key("0"), headers[0], inputs(1)).header, inputs(9)))
    assert store.load_many([Load(key("20"), True)]) == [None]
    store.close()


@pytest.mark.parametrize("at", [*range(0, 136, 5), 135])
def test_a_flipped_bit_of_a_header_is_damage(path: Path, sqlite_store: SqliteStore, at: int) -> None:
    """Also in its times, its TTL and its numerics, which nothing else would contradict."""
    header = committed(sqlite_store, create(key(), log=inputs(1, 2)))
    with closing(sqlite3.connect(path)) as connection:
        ((stored,),) = connection.execute("SELECT checked_header FROM records").fetchall()
        flipped = bytearray(stored)
        flipped[at] ^= 4
        connection.execute("UPDATE records SET checked_header = ?", (bytes(flipped),))
        connection.commit()
    (found,) = sqlite_store.load_many([Load(key(), True)])
    assert isinstance(found, DamagedRecord)
    assert "its header does not match its checksum" in str(found)
    ((_, listed),) = sqlite_store.scan("", "weather", "", "", 10).sessions
    assert isinstance(listed, DamagedRecord)
    (conflict,) = sqlite_store.commit_many([append(key(), header, inputs(3))])
    assert (conflict.outcome, conflict.standing) == (Outcome.CONFLICT, None)
    assert sqlite_store.delete_many([Delete(key(), b"")]) == [COMMITTED]
    committed(sqlite_store, create(key()))


@pytest.mark.parametrize("other", ["of another session", "of an earlier step", "of the generation before"])
@pytest.mark.parametrize("many", [1, 8], ids=["alone", "many"])
def test_the_checkpoint_of_another_header_is_damage(
    path: Path, sqlite_store: SqliteStore, other: str, many: int
) -> None:
    """As in a file that was copied while a server wrote to it: its pages are of different times."""
    keys = [key(f"pump-{number}") for number in range(many)]
    commits = [create(one, seed, log=inputs(1)) for seed, one in enumerate(keys)]
    assert sqlite_store.commit_many(commits) == [COMMITTED] * many
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute("SELECT record, state, sums FROM checkpoints").fetchall()
    if other == "of another session":
        committed(sqlite_store, create(key("other"), checkpoint=b"state of another", seed=100))
    elif other == "of an earlier step":
        commits = [replace(commit.key, commit.header, b"state 1") for commit in commits]
        assert sqlite_store.commit_many(commits) == [COMMITTED] * many
    else:
        deletes = [Delete(one, generation(seed)) for seed, one in enumerate(keys)]
        assert sqlite_store.delete_many(deletes) == [COMMITTED] * many
        commits = [create(one, checkpoint=b"state 1", seed=seed + 50) for seed, one in enumerate(keys)]
        assert sqlite_store.commit_many(commits) == [COMMITTED] * many
    with closing(sqlite3.connect(path)) as connection:
        if other == "of another session":
            swapped = "SELECT ?, state, sums FROM checkpoints WHERE state = CAST('state of another' AS BLOB)"
            connection.executemany(f"REPLACE INTO checkpoints {swapped}", [(record,) for record, *_ in before])
        else:
            connection.executemany("REPLACE INTO checkpoints VALUES (?, ?, ?)", before)
        connection.commit()
    found = sqlite_store.load_many([Load(one, True) for one in keys])
    assert all(isinstance(one, DamagedRecord) for one in found), found
    assert "its checkpoint is that of another step or session" in str(found[0])


def test_a_new_record_among_many_does_not_hide_a_damaged_one(path: Path, sqlite_store: SqliteStore) -> None:
    """A list shows an id that is not UTF-8 as another text. No session with that text is created beside it."""
    committed(sqlite_store, create(key("pump")))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE records SET session = ?", (b"pump-\xff",))
        connection.commit()
    commits = [create(key(session), seed=seed) for seed, session in enumerate(["a", "b", "pump-\\xff", "c", "d"])]
    outcomes = [result.outcome for result in sqlite_store.commit_many(commits)]
    assert outcomes == [Outcome.COMMITTED] * 2 + [Outcome.CONFLICT] + [Outcome.COMMITTED] * 2
    assert rows(path, "records") == 5


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
