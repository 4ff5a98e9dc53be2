"""Damage to a SQLite store's file concerns the sessions that it hit, and no others."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import COMMITTED, DamagedRecord, Delete, Load, Outcome, StoreError
from cellkeeper_service.store.sqlite.store import SqliteStore

from tests.contract.store.records import append, committed, create, generation, inputs, key, log_of, replace
from tests.contract.store.sqlite_rows import rows


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
