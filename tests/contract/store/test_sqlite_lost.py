"""The files of an open SQLite store are taken away: it acknowledges nothing that would then be lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.domain.clock import unix_ms
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Load, Outcome, StoreError, StoreLost
from cellkeeper_service.store.sqlite.schema import open_file
from cellkeeper_service.store.sqlite.store import SqliteStore

from tests.contract.store.records import append, committed, create, inputs, key, log_of


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def replace_by_copy(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    os.replace(copy, path)


def truncate_wal_behind_a_commit(path: Path) -> None:
    """Leaves the log as it looks when SQLite has written on after the hole."""
    wal = beside(path, "-wal")
    size = wal.stat().st_size
    os.truncate(wal, 0)
    os.truncate(wal, size)


def retarget(path: Path) -> None:
    other = path.parent.with_name("other")
    shutil.copytree(path.parent, other)
    os.rename(path.parent, path.parent.with_name("moved"))
    os.symlink(other, path.parent)


WAYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "unlinked": (Path.unlink, "was removed or moved away"),
    "moved": (lambda path: path.rename(path.with_name("moved.db")), "was removed or moved away"),
    "replaced by a copy": (replace_by_copy, "was replaced by another file"),
    "truncated": (lambda path: os.truncate(path, 0), "was truncated"),
    "folder removed": (lambda path: shutil.rmtree(path.parent), "was removed or moved away"),
    "folder moved": (lambda path: path.parent.rename(path.parent.with_name("moved")), "was removed or moved away"),
    "folder replaced": (retarget, "was replaced by another file"),
    "log unlinked": (lambda path: beside(path, "-wal").unlink(), "-wal' was removed or moved away"),
    "log replaced": (lambda path: replace_by_copy(beside(path, "-wal")), "-wal' was replaced by another file"),
    "log truncated": (truncate_wal_behind_a_commit, "-wal' was truncated or overwritten"),
    "index unlinked": (lambda path: beside(path, "-shm").unlink(), "-shm' was removed or moved away"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "sessions.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, timeout_ms=200)
    yield store
    store.close()


@pytest.mark.parametrize("way", WAYS)
def test_nothing_more_is_acknowledged(way: str, path: Path, store: SqliteStore) -> None:
    lose, text = WAYS[way]
    first = committed(store, create(key(), log=inputs(1)))
    lose(path)
    before = sorted(path.parent.iterdir()) if path.parent.exists() else []
    (result,) = store.commit_many([append(key(), first, inputs(2))])
    assert result.outcome is Outcome.REFUSED
    assert text in result.message
    with ThreadPoolExecutor(1) as thread:  # which has no connection yet, and must not create a new file
        for results in (
            store.load_many([Load(key(), False)]),
            thread.submit(store.load_many, [Load(key(), False)]).result(),
        ):
            assert isinstance(results[0], StoreLost)
            assert text in str(results[0])
    for call in (store.check, lambda: store.scan("", "weather", "", "", 10)):
        with pytest.raises(StoreLost, match="stop the server, restore the file"):
            call()
    assert (sorted(path.parent.iterdir()) if path.parent.exists() else []) == before


def test_a_file_that_is_replaced_just_before_a_thread_opens_it(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed(store, create(key()))

    def open_late(*args: Any, **options: Any) -> sqlite3.Connection:
        replace_by_copy(path)
        return open_file(*args, **options)

    monkeypatch.setattr("cellkeeper_service.store.sqlite.store.open_file", open_late)
    with ThreadPoolExecutor(1) as thread:
        (result,) = thread.submit(store.commit_many, [create(key("other"))]).result()
    assert result.outcome is Outcome.REFUSED
    assert "was replaced by another file" in result.message


@pytest.mark.parametrize("way", WAYS)
def test_a_commit_that_the_loss_overtakes_is_unknown(way: str, path: Path) -> None:
    lose, text = WAYS[way]
    armed = False

    def clock_ms() -> int:  # read in the middle of a write
        if armed:
            lose(path)
        return unix_ms()

    with closing(SqliteStore(path, clock_ms=clock_ms)) as store:
        first = committed(store, create(key()))
        armed = True
        (result,) = store.commit_many([append(key(), first, inputs(2))])
    assert result.outcome is not Outcome.COMMITTED
    if result.outcome is Outcome.UNKNOWN:
        assert text in result.message
    else:  # SQLite itself noticed
        assert way in ("truncated", "log truncated")


def test_a_file_that_is_put_back_is_served_again(path: Path, store: SqliteStore) -> None:
    first = committed(store, create(key()))
    away = path.with_name("away.db")
    path.rename(away)
    (result,) = store.commit_many([append(key(), first, inputs(1))])
    assert result.outcome is Outcome.REFUSED
    away.rename(path)
    committed(store, append(key(), first, inputs(1)))
    assert log_of(store, key()) == inputs(1)


def test_the_log_of_a_new_file_is_left_alone(path: Path, store: SqliteStore) -> None:
    """Another server was started on a restored file; then the first one ends."""
    first = committed(store, create(key()))
    copy = path.with_name("copy.db")
    with closing(SqliteStore(copy)) as made:
        committed(made, create(key()))
    path.unlink()
    beside(path, "-wal").unlink()
    beside(path, "-shm").unlink()
    copy.rename(path)
    with closing(SqliteStore(path)) as second:
        committed(second, append(key(), first, inputs(3)))
        store.close()
        assert beside(path, "-wal").exists()
        with closing(SqliteStore(path)) as third:
            assert log_of(third, key()) == inputs(3)


def test_a_log_that_gets_its_header_meanwhile_is_not_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut has left the log without a header. One thread looks at it while another makes the first commit."""
    SqliteStore(path).close()
    store = SqliteStore(path)
    beside(path, "-wal").write_bytes(bytes(32))
    looks: list[bytes] = []
    pread = os.pread

    def read(file: int, size: int, at: int) -> bytes:
        looks.append(pread(file, size, at))
        begin = looks[-1]
        if len(looks) == 1:
            committed(store, create(key()))
        return begin

    monkeypatch.setattr(os, "pread", read)
    (record,) = store.load_many([Load(key(), False)])
    assert looks[0] == bytes(4) != looks[-1]
    assert isinstance(record, Record)
    store.close()


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_to_the_file_is_followed(linked: str, path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    link = tmp_path / "link"
    link.symlink_to(path if linked == "file" else path.parent)
    with closing(SqliteStore(link if linked == "file" else link / path.name)) as store:
        first = committed(store, create(key()))
        other = tmp_path / "other"
        shutil.copytree(path.parent, other)
        link.unlink()
        link.symlink_to(other / path.name if linked == "file" else other)
        (result,) = store.commit_many([append(key(), first, inputs(1))])
        assert "was replaced by another file" in result.message


def test_a_file_with_two_names_is_refused(path: Path, store: SqliteStore, tmp_path: Path) -> None:
    """SQLite would keep a second -wal beside the other name, and two servers would destroy the file."""
    header = committed(store, create(key()))
    other = tmp_path / "other.db"
    os.link(path, other)
    for name in (other, path):
        with pytest.raises(StoreError, match=r"has 2 names \(hard links\).*remove the other names"):
            SqliteStore(name)
    other.unlink()
    committed(store, append(key(), header, inputs(1)))
    with closing(SqliteStore(path)) as again:
        assert log_of(again, key()) == inputs(1)


_MOUNTED_ALONE = """
import subprocess, sys
from cellkeeper_service.domain.store import StoreError
from cellkeeper_service.store.sqlite.schema import open_file
from cellkeeper_service.store.sqlite.store import SqliteStore

folder = sys.argv[1]
subprocess.run(["mkdir", folder + "/disk"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder + "/disk"], check=True)
SqliteStore(folder + "/disk/s.db").close()
open(folder + "/s.db", "x").close()
subprocess.run(["mount", "--bind", folder + "/disk/s.db", folder + "/s.db"], check=True)
try:
    SqliteStore(folder + "/s.db")
except StoreError as error:
    print(error)
"""


def test_a_file_that_is_mounted_without_its_folder_is_refused(tmp_path: Path) -> None:
    """As with `docker run -v $PWD/s.db:/data/s.db`: the -wal would be removed with the container."""
    (refused,) = with_mounts(_MOUNTED_ALONE, tmp_path)
    assert "is on another file system than its folder" in refused
    assert "mount the folder instead of the file" in refused


_ON_READ_ONLY = """
import subprocess, sys
from cellkeeper_service.domain.store import Load
from cellkeeper_service.store.sqlite.schema import open_file
from cellkeeper_service.store.sqlite.store import SqliteStore
from tests.contract.store.records import append, committed, create, inputs, key

folder = sys.argv[1]
store = SqliteStore(folder + "/s.db")
first = committed(store, create(key()))
subprocess.run(["mount", "--bind", folder, folder], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
print(store.commit_many([append(key(), first, inputs(1))])[0].message)
print(store.load_many([Load(key(), False)])[0])
"""
_OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")


def with_mounts(program: str, folder: Path) -> list[str]:
    """Runs the program where it may mount, with the folder as its argument. Returns the lines that it prints."""
    if shutil.which("unshare") is None or subprocess.run([*_OWN_MOUNTS, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mounts of one's own")
    words = [*_OWN_MOUNTS, sys.executable, "-c", program, str(folder)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_file_system_that_becomes_read_only(tmp_path: Path) -> None:
    """By a mount over it: only the kernel can make open files unwritable."""
    commit, load = with_mounts(_ON_READ_ONLY, tmp_path)
    assert "read-only; mount it for writing" in commit
    assert "read-only; mount it for writing" in load
