"""A SQLite store on a full disk: it reads, refuses writes, and writes again as soon as there is space.

The disk is a small tmpfs. Where the tests may not mount one, only those with a limit on the size of files run.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import COMMITTED, Delete, Load, Outcome, StoreError
from cellkeeper_service.store.sqlite.store import SqliteStore

from tests.contract.store.records import append, committed, create, generation, inputs, key, log_of
from verification.chaos.disk import SmallDisk

MIB = 1024 * 1024
STATE = bytes(range(250)) * 12
FILE_BYTES = 256 * 1024  # the log would reach its usual checkpoint at 4 MB
STEPS = 400


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    with SmallDisk(2) as disk:
        if not disk.limited:
            pytest.skip("mounting a tmpfs needs root and the right to mount")
        yield disk


@pytest.fixture
def path(disk: SmallDisk) -> Path:
    return disk.folder / "sessions.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path, timeout_ms=200)) as store:
        yield store


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def create_until_refused(store: SqliteStore, name: str) -> tuple[int, str]:
    """Returns how many sessions were created, and why the next one was refused."""
    for number in range(10_000):
        (result,) = store.commit_many([create(key(f"{name}{number}"), checkpoint=STATE)])
        if result is not COMMITTED:
            assert result.outcome is Outcome.REFUSED
            return number, result.message
    raise AssertionError("the disk does not become full")


def append_until_refused(store: SqliteStore, header: Header) -> Header:
    for number in range(10_000):
        commit = append(key(), header, inputs(number, 200))
        (result,) = store.commit_many([commit])
        if result is not COMMITTED:
            assert result.outcome is Outcome.REFUSED
            return header
        header = commit.header
    raise AssertionError("the disk does not become full")


def readable(store: SqliteStore, name: str, count: int) -> bool:
    """Returns True if exactly the first `count` sessions are there, complete."""
    found = [store.load_many([Load(key(f"{name}{number}"), True)])[0] for number in range(count + 1)]
    return found == [*[Record(create(key(), checkpoint=STATE).header, STATE, b"")] * count, None]


def test_the_log_cannot_take_the_space_of_its_own_checkpoint(path: Path, store: SqliteStore) -> None:
    count, message = create_until_refused(store, "s")
    assert path.stat().st_size > MIB, "the disk is full of log"
    assert f"the disk of '{path}' is full" in message
    assert "make room there, and writes continue without a restart" in message
    assert readable(store, "s", count)
    assert len(store.scan("", "weather", "", "", 10_000).sessions) == count


def test_a_server_that_starts_on_a_full_disk_writes_again(path: Path, store: SqliteStore) -> None:
    count, _ = create_until_refused(store, "s")
    store.close()
    with closing(SqliteStore(path, timeout_ms=200)) as again:
        again.check()
        assert readable(again, "s", count)
        more, _ = create_until_refused(again, "more")
        assert readable(again, "more", more)


def test_the_log_of_a_killed_server_is_freed(disk: SmallDisk, path: Path) -> None:
    with closing(SqliteStore(path)) as before:
        committed(before, create(key()))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.contract.store.worker", f"sqlite:{path}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(20)][-1]
        process.kill()
    disk.fill()
    with closing(SqliteStore(path)) as store:
        (record,) = store.load_many([Load(key(), False)])
        assert isinstance(record, Record)
        assert record.position.step >= acknowledged
        committed(store, append(key(), record.header, inputs(1)))
        assert log_of(store, key()) == record.log + inputs(1)


def test_deleted_sessions_make_room(store: SqliteStore) -> None:
    count, _ = create_until_refused(store, "s")
    for number in range(20):
        assert store.delete_many([Delete(key(f"s{number}"), generation(1))]) == [COMMITTED]
    more, _ = create_until_refused(store, "more")
    assert more >= 15
    assert readable(store, "more", more)
    assert store.load_many([Load(key(f"s{count - 1}"), False)])[0] is not None


def test_a_disk_that_others_fill(disk: SmallDisk, store: SqliteStore) -> None:
    header = committed(store, create(key(), log=inputs(0, 2000)))
    disk.fill()
    header = append_until_refused(store, header)
    before = log_of(store, key())
    assert len(before) == 4 * header.position.step
    refused = append(key(), header, inputs(1, 200))
    assert store.commit_many([refused])[0].outcome is Outcome.REFUSED
    assert store.load_many([Load(key(), True)]) == [Record(header, b"state 0", before)]
    disk.free()
    assert store.commit_many([refused]) == [COMMITTED]
    assert log_of(store, key()) == before + refused.log
    assert store.commit_many([refused])[0].outcome is Outcome.CONFLICT


def test_a_full_disk_without_a_reserve_needs_room_only_for_a_checkpoint(
    disk: SmallDisk, path: Path, store: SqliteStore
) -> None:
    """As an earlier version has left it, or somebody who has removed the reserve."""
    count = 30
    for number in range(count):
        committed(store, create(key(f"s{number}"), checkpoint=STATE))
    assert path.stat().st_size < 10_000, "nothing of the log is checkpointed"
    (disk.folder / "small").write_bytes(bytes(400 * 1024))
    beside(path, "-reserve").unlink()
    disk.fill()
    _, message = create_until_refused(store, "more")
    assert "(0 bytes free)" in message
    assert readable(store, "s", count)
    (disk.folder / "small").unlink()
    more, _ = create_until_refused(store, "more")
    assert more > 0
    assert readable(store, "s", count)
    assert readable(store, "more", more)


def test_the_reserve_is_there_while_there_is_a_log(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    reserve = beside(path, "-reserve")
    with closing(SqliteStore(path)) as store:
        with closing(SqliteStore(path)) as other:
            committed(other, create(key(), checkpoint=bytes(100_000)))
        assert reserve.stat().st_size > 100_000
        reserve.unlink()
        committed(store, create(key("other")))
        assert reserve.stat().st_size > 100_000
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_reserve_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(SqliteStore(path)) as store:
        beside(path, "-reserve").mkdir()
        (result,) = store.commit_many([create(key())])
        assert result.outcome is Outcome.REFUSED
        assert "-reserve': " in result.message
        beside(path, "-reserve").rmdir()
        committed(store, create(key()))


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """The log reaches it long before SQLite would checkpoint it."""
    path = tmp_path / "sessions.db"
    with closing(SqliteStore(path)) as store:
        committed(store, create(key()))
        ended = subprocess.run([sys.executable, "-m", __name__, str(path)], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert log_of(store, key()) == b"".join(inputs(step) for step in range(STEPS))


def append_under_a_limit(path: str) -> None:
    """Appends STEPS steps one by one. A try that failed or got no answer is made again, as a server would."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    with closing(SqliteStore(path)) as store:
        for _ in range(2 * STEPS):
            (record,) = store.load_many([Load(key(), False)])
            if record is None or isinstance(record, StoreError):
                raise SystemExit(f"cannot read: {record}")
            step = record.position.step
            if step == STEPS:
                return
            store.commit_many([append(key(), record.header, inputs(step))])
    raise SystemExit(f"stopped at step {step}")


if __name__ == "__main__":
    append_under_a_limit(sys.argv[1])


def test_a_file_that_cannot_be_made(disk: SmallDisk, path: Path) -> None:
    disk.fill()
    with pytest.raises(StoreError, match=r"database or disk is full; make room on its disk \(\d+ bytes free\)$"):
        SqliteStore(path, timeout_ms=200)
    disk.free()
    SqliteStore(path, timeout_ms=200).close()


def test_a_file_whose_log_cannot_be_made(disk: SmallDisk, path: Path) -> None:
    """At a restart: what SQLite said first used to be lost, and the advice was to name another file."""
    SqliteStore(path, timeout_ms=200).close()
    disk.fill()
    with pytest.raises(StoreError, match=r"; make room on its disk \(\d+ bytes free\)(, or check it)?$"):
        SqliteStore(path, timeout_ms=200)
    disk.free()
    with closing(SqliteStore(path, timeout_ms=200)) as store:
        committed(store, create(key()))
