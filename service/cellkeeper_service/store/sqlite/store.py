"""The SQLite store, the embedded default: records in one file, which several server processes may share."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cellkeeper_service.domain.clock import unix_ms
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import (
    COMMITTED,
    LOAD_BYTES,
    Commit,
    CommitResult,
    Delete,
    Listed,
    Load,
    Outcome,
    Page,
    Postponed,
    StoreError,
    StoreFacts,
    StoreLost,
)

from ..cursor import session_after, session_cursor
from ..damage import BAD_ID, damaged
from ..expiry import next_expiry_ms
from . import rows
from .bulk import commit_groups
from .file import SqliteFile, refuse_second_name
from .schema import open_file
from .space import FULL, Space
from .stored_header import read_stored

SWEEP_RECORDS = 64  # expired records that one write removes, at most
_NOT_COMMITTED = (FULL, "database is locked", "attempt to write a readonly database")
_BEYOND_ALL = b"\xff" * 1024  # above every session id

_T = TypeVar("_T")
_I = TypeVar("_I", Commit, Delete)

log = logging.getLogger(__name__)


class _CommitFailed(sqlite3.Error):
    """COMMIT failed, or the file was lost, so the transaction may or may not survive a crash."""


class SqliteStore:
    """One SQLite file in WAL mode, with one connection per thread and one transaction per call.

    path: the file; it and its folder are created if missing.
    timeout_ms: how long to wait for other writers.
    clock_ms: unix time in milliseconds; processes that share the file must agree on it.
    """

    name = "sqlite"
    facts = StoreFacts("synchronous full")

    def __init__(self, path: str | Path, *, timeout_ms: int = 1000, clock_ms: Callable[[], int] = unix_ms) -> None:
        self._path = Path(path)
        self._timeout_ms = timeout_ms
        self._clock_ms = clock_ms
        self._local = threading.local()
        self._lock = threading.Lock()  # guards the connections, the file and closing
        self._writing = threading.Lock()  # threads of one process queue here, since SQLite waits by slow polling
        self._connections: list[sqlite3.Connection] = []
        self._file: SqliteFile | None = None
        self._space: Space | None = None
        self._closed = False
        self._sweeps = True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"SQLite cannot create the folder of {str(path)!r}: {error}; name another") from error
        refuse_second_name(self._path)
        self._connection()

    def check(self) -> None:
        """Raises StoreError if the file cannot be written, or is not the one that was opened."""
        try:
            self._write(self._sweep)
        except sqlite3.Error as error:
            raise StoreError(
                f"SQLite cannot write {str(self._path)!r}: {error}; free space, or check permissions"
            ) from error

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        results: list[Record | StoreError | None] = []
        refreshes: list[tuple[int, int, int]] = []
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                now_ms, room = self._clock_ms(), LOAD_BYTES
                for load in loads:
                    if room <= 0:
                        results.append(Postponed(alone=False))
                        continue
                    row = rows.find(connection, load.key)
                    if row is None or rows.is_expired(row[2], now_ms):
                        results.append(None)
                        continue
                    record, header, expires_ms = row
                    if len(loads) > 1 and rows.log_bytes(connection, record) > LOAD_BYTES:
                        results.append(Postponed(alone=True))
                        continue
                    result = rows.load(connection, load.key, record, header)
                    results.append(result)
                    if isinstance(result, Record):
                        room -= len(result.log) + len(result.checkpoint)
                    if load.touch and isinstance(result, Record):
                        next_ms = next_expiry_ms(now_ms, result.header.ttl_ms, expires_ms)
                        if next_ms != expires_ms:
                            refreshes.append((next_ms, record, expires_ms))
            finally:
                connection.execute("ROLLBACK")
        except StoreLost as error:
            return [error] * len(loads)
        except (sqlite3.Error, StoreError) as error:
            return [StoreError(f"SQLite cannot read {str(self._path)!r}: {error}")] * len(loads)
        if refreshes:
            self._refresh(refreshes)
        return results

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        def apply(connection: sqlite3.Connection, now_ms: int, some: Sequence[Commit]) -> list[CommitResult]:
            self._sweep(connection, now_ms)
            done = commit_groups(connection, some, now_ms)
            return [
                COMMITTED if number in done else rows.apply_commit(connection, commit, now_ms)
                for number, commit in enumerate(some)
            ]

        return self._results(apply, commits)

    def delete_many(self, deletes: Sequence[Delete]) -> list[CommitResult]:
        def apply(connection: sqlite3.Connection, now_ms: int, some: Sequence[Delete]) -> list[CommitResult]:
            return [rows.apply_delete(connection, delete, now_ms) for delete in some]

        return self._results(apply, deletes)

    def scan(self, tenant: str, model: str, prefix: str, cursor: str, limit: int) -> Page:
        after = session_after(cursor)
        first = prefix.encode()
        query = (
            "SELECT session, CAST(checked_header AS BLOB) FROM records WHERE tenant = ? AND model = ? AND session >= ? "
            "AND session < ? AND session > ? AND (expires_ms = 0 OR expires_ms > ?) ORDER BY session LIMIT ?"
        )
        beyond = first[:-1] + bytes([first[-1] + 1]) if first else _BEYOND_ALL
        try:
            found = (
                self._connection()
                .execute(query, (tenant, model, first, beyond, after, self._clock_ms(), limit + 1))
                .fetchall()
            )
        except sqlite3.Error as error:
            raise StoreError(f"SQLite cannot read {str(self._path)!r}: {error}") from error
        page: list[Listed] = []
        for raw, header in found[:limit]:
            key = SessionKey(tenant, model, rows.shown_id(raw))
            page.append((key, damaged(key, BAD_ID) if rows.is_damaged_id(raw) else read_stored(key, header)))
        return Page(page, session_cursor(found[limit - 1][0]) if len(found) > limit else "")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            connections, self._connections = self._connections, []
            file, self._file = self._file, None
            space, self._space = self._space, None
        for connection in connections:
            # If the file was replaced, SQLite does not touch the -wal of the new one.
            connection.close()
        if file is not None:
            file.close()
        if space is not None:
            space.close()

    def _connection(self) -> sqlite3.Connection:
        """Returns this thread's connection to the file that was opened first. Raises StoreError."""
        self._check_file()
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._lock:
                if self._closed:
                    raise StoreError("the SQLite store is closed")
                connection = open_file(self._path, self._timeout_ms, make=self._file is None)
                try:
                    if self._file is None:
                        self._file = SqliteFile(self._path, connection)
                        self._space = Space(self._file.database, connection)
                    else:
                        self._file.check()  # it may have been replaced just before it was opened
                except StoreError:
                    connection.close()
                    raise
                self._connections.append(connection)
            self._local.connection = connection
        return connection

    def _check_file(self) -> None:
        """Raises StoreLost if the file at the path is no longer the one that was opened."""
        file = self._file
        if file is not None:
            file.check()

    def _results(
        self, apply: Callable[[sqlite3.Connection, int, Sequence[_I]], list[CommitResult]], items: Sequence[_I]
    ) -> list[CommitResult]:
        """Applies all items in one transaction. A failure fails them all, except that of a damaged page: SQLite lets a
        transaction that has met one write nothing more, so the halves are tried, until what meets it fails alone."""
        try:
            return self._write(lambda connection, now_ms: apply(connection, now_ms, items))
        except _CommitFailed as error:
            failed = CommitResult(Outcome.UNKNOWN, message=f"SQLite failed to commit: {error}")
        except (sqlite3.Error, StoreError) as error:
            if isinstance(error, sqlite3.DatabaseError) and rows.is_damage(error) and len(items) > 1:
                half = len(items) // 2
                return self._results(apply, items[:half]) + self._results(apply, items[half:])
            failed = CommitResult(Outcome.REFUSED, message=f"SQLite wrote nothing: {error}")
        return [failed] * len(items)

    def _write(self, apply: Callable[[sqlite3.Connection, int], _T]) -> _T:
        """Runs `apply` in a write transaction.

        Raises sqlite3.Error or StoreError if nothing was written, _CommitFailed if that is not certain.
        """
        connection = self._connection()
        if not self._writing.acquire(timeout=self._timeout_ms / 1000.0):
            raise sqlite3.OperationalError(f"other threads kept writing for {self._timeout_ms} ms")
        try:
            if (space := self._space) is None:
                raise StoreError("the SQLite store is closed")
            return space.with_room(connection, self._check_file, lambda: self._transaction(connection, space, apply))
        finally:
            self._writing.release()

    def _transaction(
        self, connection: sqlite3.Connection, space: Space, apply: Callable[[sqlite3.Connection, int], _T]
    ) -> _T:
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = apply(connection, self._clock_ms())
            space.set_aside(connection)
            self._commit(connection)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return result

    def _sweep(self, connection: sqlite3.Connection, now_ms: int) -> None:
        """Removes some expired records, in a write transaction that has just begun.

        If one is damaged, the expired stay in the file from now on: they must not fail what others write.
        """
        if not self._sweeps:
            return
        try:
            rows.sweep(connection, now_ms, SWEEP_RECORDS)
        except sqlite3.DatabaseError as error:
            if not rows.is_damage(error):
                raise
            self._sweeps = False
            log.warning("SQLite cannot remove expired sessions, which stay in the file: %s; restore the store", error)
            connection.execute("ROLLBACK")  # SQLite lets a transaction that has met damage write nothing more
            connection.execute("BEGIN IMMEDIATE")

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
            self._check_file()  # it may have gone to a file that nobody will find
        except (sqlite3.Error, StoreError) as error:
            # SQLite detects a full disk or a busy file before it writes the transaction's last page. After any other
            # failure (of an fsync, say) the pages may be in the log, and a crash may bring them back.
            if isinstance(error, sqlite3.OperationalError) and str(error).startswith(_NOT_COMMITTED):
                raise
            raise _CommitFailed(str(error)) from error

    def _refresh(self, refreshes: list[tuple[int, int, int]]) -> None:
        """Writes new expiry times, unless the old ones have changed. The load does not need this, so failures are
        ignored."""
        with contextlib.suppress(sqlite3.Error, StoreError):
            self._write(
                lambda connection, _: connection.executemany(
                    "UPDATE records SET expires_ms = ? WHERE record = ? AND expires_ms = ?", refreshes
                )
            )
