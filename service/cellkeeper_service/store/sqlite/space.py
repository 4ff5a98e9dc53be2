"""Keeps a SQLite store from filling its disk to a point where only an operator could help.

Commits grow the write-ahead log; only a checkpoint, which moves its pages into the database, frees it. But a checkpoint
may have to lengthen the database first. If the log has taken the last free block, that is impossible, and the log is
never freed. So the space by which the next checkpoint will lengthen the database is set aside before each commit: in a
file beside it, the -reserve, which contains only zeros. When the disk is full, the reserve is removed, and SQLite has
room for a checkpoint.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from cellkeeper_service.domain.store import StoreError

_logger = logging.getLogger(__name__)

FULL = "database or disk is full"
_IO_ERROR = "disk I/O error"  # how SQLite reports a quota or a limit on the size of files, among other things
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_STEP_BYTES = 64 * 1024

_T = TypeVar("_T")


def is_full(error: sqlite3.Error) -> bool:
    """Returns True if there was no space, and nothing of the transaction was written."""
    return str(error).startswith(FULL)


def is_io_error(error: sqlite3.Error) -> bool:
    """Returns True for an error of the disk, as which SQLite may report a full one, too."""
    return str(error).startswith(_IO_ERROR)


def free_bytes(path: str | Path) -> str:
    """Says how much space is left where the file or folder is."""
    try:
        usage = os.statvfs(path)
    except OSError as error:
        return f"free space unknown: {error.strerror}"
    return f"{usage.f_bavail * usage.f_frsize} bytes free"


class Space:
    """The disk space of one database, for all processes that have it open."""

    def __init__(self, database: str, connection: sqlite3.Connection) -> None:
        """database: its path, with symbolic links resolved, since its other files are beside the target."""
        self._database = database
        self._reserve = f"{database}-reserve"
        self._page_bytes = int(connection.execute("PRAGMA page_size").fetchone()[0])

    def set_aside(self, connection: sqlite3.Connection) -> None:
        """Sets aside what a checkpoint needs after the open write transaction has been committed.

        Only one process can be in a write transaction. Raises sqlite3.OperationalError, as SQLite does, if the disk is
        full, and StoreError if the reserve cannot be written.
        """
        pages = int(connection.execute("PRAGMA page_count").fetchone()[0])
        try:
            missing = pages * self._page_bytes - os.stat(self._database).st_size
        except OSError:
            return  # the file is lost, which the check of a commit's files reports
        if missing <= 0:
            return
        try:
            # One step more than the pages take, for what the file system itself needs to lengthen a file.
            self._lengthen_reserve((missing // _STEP_BYTES + 2) * _STEP_BYTES)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise sqlite3.OperationalError(FULL) from error
            raise StoreError(f"cannot write {self._reserve!r}: {error}; check its permissions") from error

    def with_room(self, connection: sqlite3.Connection, check: Callable[[], object], write: Callable[[], _T]) -> _T:
        """Runs `write`, a whole transaction; if the disk is full, makes room and runs it once more.

        check: raises StoreError if the files are lost. Raises StoreError if there is no room even after a checkpoint,
        and whatever else `write` raises.
        """
        try:
            return write()
        except sqlite3.Error as error:
            # After an I/O error, too, or a log that cannot grow would never be freed. Whether that transaction was
            # written is not certain, so it is not run again.
            made = (is_full(error) or is_io_error(error)) and self._make(connection, check)
            if not is_full(error):
                raise
            if not made:
                raise self._full() from error
        try:
            return write()
        except sqlite3.Error as error:
            if not is_full(error):
                raise
            raise self._full() from error

    def close(self) -> None:
        """Removes the reserve if SQLite has removed the log, which it does when the last connection closes."""
        if not os.path.exists(f"{self._database}-wal"):
            with suppress(OSError):
                self._remove_reserve()

    def _make(self, connection: sqlite3.Connection, check: Callable[[], object]) -> bool:
        """Frees the write-ahead log by a checkpoint. Returns False if that is not possible now; the caller reports
        why."""
        try:
            check()  # a checkpoint of a truncated log would damage the database
            log_bytes = _size(f"{self._database}-wal")
            # In a write transaction, or another process might be about to commit what it has set space aside for.
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._remove_reserve()
            finally:
                connection.execute("ROLLBACK")
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except (OSError, sqlite3.Error, StoreError):
            return False
        if not busy and log_bytes:
            _logger.warning(
                "sqlite: no space for a write to %r; a checkpoint has freed the %d bytes of its write-ahead log",
                self._database,
                log_bytes,
            )
        return not busy

    def _full(self) -> StoreError:
        """Returns the error of a write for which there is no space."""
        return StoreError(
            f"the disk of {self._database!r} is full, or a quota is reached ({free_bytes(self._database)}); make room "
            "there, and writes continue without a restart"
        )

    def _lengthen_reserve(self, size: int) -> None:
        """Zeros are written, because not every system can allocate space otherwise. Raises OSError."""
        written = _size(self._reserve)
        if written >= size:
            return
        reserve = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            while written < size:
                written += os.pwrite(reserve, bytes(min(size - written, _STEP_BYTES)), written)
        finally:
            os.close(reserve)

    def _remove_reserve(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._reserve)


def _size(name: str) -> int:
    """Returns the size of a file in bytes, 0 if it does not exist."""
    try:
        return os.stat(name).st_size
    except FileNotFoundError:
        return 0
