"""Power cuts of a SQLite store: its write-ahead log is cut at every byte, and unsynced pages of its file are dropped.

A run must find the complete result of some call, not older than what was acknowledged before the cut. SQLite syncs the
log before a commit returns (synchronous FULL, see test_sqlite.py), so a cut takes only bytes beyond the log's size at
the last acknowledgement.
"""

from __future__ import annotations

import random
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import COMMITTED, Commit, Delete, Load, StoreError
from cellkeeper_service.store.sqlite.store import SqliteStore

from tests.contract.store.records import append, committed, create, generation, inputs, key, replace

NOW_MS = 1_800_000_000_000
PAGE_BYTES = 512  # the minimum, so that every byte can be cut
FRAME_BYTES = 24 + PAGE_BYTES
WAL_HEADER_BYTES = 32
IN_FRAME = 25  # after a frame's header, in its page
FOUR = ("a", "b", "c", "d")  # as many as the store writes with one statement each
SESSIONS = (*FOUR, "ttl", "fork")

Found = list[Record | StoreError | None]


class Files(NamedTuple):
    """What a disk holds: the database and its write-ahead log."""

    database: bytes
    wal: bytes


class History(NamedTuple):
    """The files after all calls, and what each call left.

    files: nothing of them is checkpointed. sizes, states: the log's bytes and every session's state before the first
    call and after each call.
    """

    files: Files
    sizes: list[int]
    states: list[Found]

    def acknowledged(self, cut: int) -> int:
        """Returns the number of the last call whose log is complete in the first `cut` bytes."""
        return bisect_right(self.sizes, cut) - 1


def load(store: SqliteStore) -> Found:
    return store.load_many([Load(key(session), touch=False) for session in SESSIONS])


def on_disk(path: Path) -> Files:
    wal = path.with_name("s.db-wal")
    return Files(path.read_bytes(), wal.read_bytes() if wal.exists() else b"")


@contextmanager
def run_on(folder: Path, files: Files, now_ms: int = NOW_MS) -> Iterator[SqliteStore]:
    """Yields a store that starts on these files, which replace the existing ones."""
    path = folder / "s.db"
    path.with_name("s.db-shm").unlink(missing_ok=True)
    path.write_bytes(files.database)
    path.with_name("s.db-wal").write_bytes(files.wal)
    with closing(SqliteStore(path, clock_ms=lambda: now_ms)) as store:
        yield store


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder, in memory if possible: no test here depends on a real disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def history(folder: Path) -> History:
    """Makes every kind of commit, one call after the other."""
    path = folder / "made" / "s.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("VACUUM")
    SqliteStore(path).close()  # the tables are created and checkpointed
    now = [NOW_MS]
    with (
        closing(SqliteStore(path, clock_ms=lambda: now[0])) as store,
        closing(SqliteStore(path, clock_ms=lambda: NOW_MS)) as reader,
    ):
        sizes, states = [0], [load(reader)]

        def call(*commits: Commit, deletes: tuple[Delete, ...] = ()) -> list[Commit]:
            results = store.delete_many(deletes) if deletes else store.commit_many(commits)
            assert results == [COMMITTED] * len(results)
            sizes.append(len(on_disk(path).wal))
            states.append(load(reader))
            return list(commits)

        four = call(*(create(key(s), seed=n, log=inputs(n)) for n, s in enumerate(FOUR)))
        (ttl,) = call(create(key("ttl"), seed=7, ttl_ms=1000, log=inputs(7, 2)))
        (one,) = call(append(key("a"), four[0].header, inputs(20)))
        (one,) = call(append(key("a"), one.header, inputs(21, 3)))
        (one,) = call(replace(key("a"), one.header, b"state of a", inputs(22)))
        four = call(*(append(c.key, c.header, inputs(30)) for c in (one, *four[1:])))
        four = call(*(replace(c.key, c.header, bytes(700), inputs(40)) for c in four))
        (ttl,) = call(append(key("ttl"), ttl.header, inputs(8), ttl_ms=500))
        call(create(key("fork"), seed=9, checkpoint=bytes(range(200)), log=inputs(9, 2)))
        call(deletes=(Delete(key("b"), generation(1)), Delete(key("c"), generation(2))))
        call(create(key("b"), seed=11, log=inputs(11)))
        now[0] += 10_000
        call(append(key("d"), four[3].header, inputs(50)))  # and expired sessions are swept
        files = on_disk(path)
    assert len({repr(state) for state in states}) == len(states), "each call changes what is read"
    assert len(files.wal) == sizes[-1], "nothing was checkpointed"
    return History(files, sizes, states)


def found(folder: Path, files: Files) -> Found:
    with run_on(folder, files) as store:
        return load(store)


def edges(size: int, *offsets: int) -> list[int]:
    """Returns bytes of the log's header, and those at these offsets from each frame's start."""
    starts = range(WAL_HEADER_BYTES, size + 1, FRAME_BYTES)
    near = {start + offset for start in starts for offset in offsets}
    return sorted(at for at in {0, 1, WAL_HEADER_BYTES // 2, size, *near} if at <= size)


def cuts(size: int) -> list[int]:
    """Returns the edges and every 61st byte from a start that each run draws anew: over many runs, all bytes."""
    return sorted({*edges(size, -1, 0, 1, 24), *range(random.SystemRandom().randrange(61), size, 61)})


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=(pytest.mark.fire, pytest.mark.timeout(600)))])
def test_the_log_is_cut_at_any_byte(every: bool, history: History, folder: Path) -> None:
    database, wal = history.files
    for cut in range(len(wal) + 1) if every else cuts(len(wal)):
        what = found(folder, Files(database, wal[:cut]))
        assert what == history.states[history.acknowledged(cut)], f"cut after {cut} bytes"


def test_the_last_byte_of_what_was_acknowledged_counts(history: History, folder: Path) -> None:
    """Shows that the test above can fail: a cut into synced bytes loses a call."""
    database, wal = history.files
    for number, size in enumerate(history.sizes[1:]):
        assert found(folder, Files(database, wal[: size - 1])) == history.states[number] != history.states[number + 1]


def test_unsynced_frames_are_dropped_one_by_one(history: History, folder: Path) -> None:
    """The disk wrote the last call's frames out of order: one is missing, later ones are there."""
    database, wal = history.files
    for number, (start, end) in enumerate(pairwise(history.sizes)):
        for at in range(max(start, WAL_HEADER_BYTES), end, FRAME_BYTES):
            torn = wal[:at] + bytes(FRAME_BYTES) + wal[at + FRAME_BYTES : end]
            assert found(folder, Files(database, torn)) == history.states[number], f"the frame at {at} is missing"


def write(store: SqliteStore) -> None:
    """Makes one more commit to session "a", whatever its state."""
    (record,) = store.load_many([Load(key("a"), touch=False)])
    if isinstance(record, Record):
        committed(store, append(key("a"), record.header, inputs(99)))
    else:
        assert record is None
        committed(store, create(key("a"), seed=99))


def test_three_runs(history: History, folder: Path) -> None:
    """A run that only reads leaves what it found.

    One that writes to the record whose commit was cut, and is cut while doing so, leaves the record as before or after
    this write, never with what the first run had begun.
    """
    database, wal = history.files
    for cut in edges(len(wal), 0, IN_FRAME):
        before = history.states[history.acknowledged(cut)]
        with run_on(folder, Files(database, wal[:cut])) as store:
            assert load(store) == before
        assert found(folder, on_disk(folder / "s.db")) == before, f"cut after {cut} bytes, read, ended"
        with run_on(folder, Files(database, wal[:cut])) as store:
            write(store)
            after, written = load(store), on_disk(folder / "s.db")
        assert after != before
        assert found(folder, on_disk(folder / "s.db")) == after, f"cut after {cut} bytes, written, ended"
        if cut % FRAME_BYTES == WAL_HEADER_BYTES + IN_FRAME:
            check_cut(folder, Files(database, wal[:cut]), written, before, after)


def check_cut(folder: Path, old: Files, new: Files, before: Found, after: Found) -> None:
    """Checks each cut of a log that changed from `old` to `new`: it yields `before` or `after`.

    A cut log ends there, or continues with the rest of `old`.
    """
    first = next((at for at, (a, b) in enumerate(zip(old.wal, new.wal, strict=False)) if a != b), len(old.wal))
    for rest in (b"", old.wal):
        at = [cut for cut in edges(len(new.wal), 0, IN_FRAME) if cut >= first]
        states = [found(folder, Files(new.database, new.wal[:cut] + rest[cut:])) for cut in at]
        assert all(state in (before, after) for state in states)
        assert states[0] == before
        assert states[-1] == after
        written = [state == after for state in states]
        assert written == sorted(written), "what is there stays there"


class Checkpointed(NamedTuple):
    """The database file after the log was checkpointed, and the log after one more commit, which restarts it."""

    database: bytes
    restarted: Files
    after: Found


@pytest.fixture(scope="module")
def checkpointed(history: History, folder: Path) -> Checkpointed:
    path = folder / "s.db"
    with run_on(folder, history.files) as store:
        load(store)
        with closing(sqlite3.connect(path)) as other:
            busy, frames, carried = other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert (busy, frames) == (0, carried)
        database = path.read_bytes()
        write(store)
        restarted = on_disk(path)
        after = load(store)
    assert restarted.wal[:WAL_HEADER_BYTES] != history.files.wal[:WAL_HEADER_BYTES]
    return Checkpointed(database, restarted, after)


def half_checkpointed(old: bytes, new: bytes) -> Iterator[bytes]:
    """Yields files with some pages written and others not: all but one, only one, one half, one torn, or not yet grown.

    What was synced before a checkpoint is never shortened.
    """
    synced = len(old)
    size = max(len(old), len(new))
    old = old + bytes(size - len(old))
    changed = [at for at in range(0, size, PAGE_BYTES) if old[at : at + PAGE_BYTES] != new[at : at + PAGE_BYTES]]
    for at in changed:
        half, end = at + PAGE_BYTES // 2, at + PAGE_BYTES
        yield new[:at] + old[at:end] + new[end:]
        yield old[:at] + new[at:end] + old[end:]
        yield new[:half] + old[half:end] + new[end:]
        yield new[:at] + b"\xff" * PAGE_BYTES + new[end:]
        if at >= synced:
            yield new[:at]


def test_pages_of_a_checkpoint_are_dropped(history: History, checkpointed: Checkpointed, folder: Path) -> None:
    """Until the file is synced, the log is complete and has every page of the checkpoint."""
    files = [history.files.database, *half_checkpointed(history.files.database, checkpointed.database)]
    for database in files:
        assert found(folder, Files(database, history.files.wal)) == history.states[-1]


def test_without_the_log_dropped_pages_are_a_loss(history: History, checkpointed: Checkpointed, folder: Path) -> None:
    """Shows that the test above can fail."""
    assert found(folder, Files(history.files.database, b"")) != history.states[-1]


def test_a_log_that_begins_anew_is_cut(history: History, checkpointed: Checkpointed, folder: Path) -> None:
    """The old frames after its new ones must not take effect again."""
    old = Files(checkpointed.database, history.files.wal)
    check_cut(folder, old, checkpointed.restarted, history.states[-1], checkpointed.after)
