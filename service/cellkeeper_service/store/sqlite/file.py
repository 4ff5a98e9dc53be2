"""Detects that the files of a SQLite store were removed or replaced while it had them open.

SQLite keeps writing to files that were unlinked, moved or replaced, because it holds them open; those commits are gone
when the process ends. It also keeps the newest commits in a -wal beside the path by which the file was opened.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from cellkeeper_service.domain.store import StoreError, StoreLost

_HEADER_BYTES = 100  # of a database file: a shorter one was truncated
_WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")


class SqliteFile:
    """The files of one database (itself, its -wal and -shm) as they were when it was opened.

    They keep their inodes as long as any connection is open: SQLite removes the -wal and the -shm when the last one
    closes.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """path: as the user gave it. connection: the first one, in WAL mode, which has read the file.

        Raises StoreLost if a file is already gone, and StoreError if the -wal would not be kept with the database.
        """
        # SQLite resolves symbolic links, and puts the -wal and the -shm beside the target.
        self.database = database = str(connection.execute("PRAGMA database_list").fetchone()[2])
        self._path = str(path)
        self._wal = f"{database}-wal"
        found = [(name, _stat(name)) for name in (self._path, self._wal, f"{database}-shm")]
        if len({status.st_dev for _, status in found}) > 1:  # the file is mounted without its folder
            raise StoreError(
                f"{database!r} is on another file system than its folder, so that its -wal, which has the newest "
                "commits, would not be kept with it; mount the folder instead of the file"
            )
        self._seen = [(name, (status.st_dev, status.st_ino)) for name, status in found]
        # SQLite takes no locks on the -wal, so closing this descriptor releases none.
        self._wal_started = False
        self._wal_file = os.open(self._wal, os.O_RDONLY | os.O_CLOEXEC)

    def check(self) -> None:
        """Raises StoreLost if the next process to open the path would not find what is written now."""
        for name, before in self._seen:
            found = _stat(name)
            if (found.st_dev, found.st_ino) != before:
                raise _lost(name, "was replaced by another file")
            if name == self._path and found.st_size < _HEADER_BYTES:
                raise _lost(name, "was truncated")
        started = self._wal_started  # before the log is read: another thread may commit, and see the header, meanwhile
        try:
            begin, flags = os.pread(self._wal_file, 4, 0), os.statvfs(self._path).f_flag
        except OSError as error:
            raise _lost(self._path, f"cannot be reached ({error.strerror})") from error
        # A power cut may leave a log without a header, which the next commit rewrites. A log that has since had a
        # header and has lost it was truncated, and SQLite keeps writing after the hole.
        if begin in _WAL_MAGIC:
            self._wal_started = True
        elif begin and started:
            raise _lost(self._wal, "was truncated or overwritten")
        if flags & os.ST_RDONLY:
            raise StoreLost(f"the file system of {self._path!r} is read-only; mount it for writing")

    def close(self) -> None:
        os.close(self._wal_file)


def refuse_second_name(path: Path) -> None:
    """Raises StoreError if the file at the path has another name, too. SQLite keeps a -wal beside each name that is
    opened, and two servers with a -wal each overwrite each other's commits."""
    try:
        status = path.stat()
    except OSError:
        return  # there is none yet, or SQLite says what is wrong
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise StoreError(
            f"{str(path)!r} has {status.st_nlink} names (hard links), and SQLite keeps a -wal beside each that is "
            "opened, so that servers would destroy the file; remove the other names, or use a copy of the file"
        )


def _stat(name: str) -> os.stat_result:
    try:
        return os.stat(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _lost(name, "was removed or moved away") from error
    except OSError as error:
        raise _lost(name, f"cannot be reached ({error.strerror})") from error


def _lost(name: str, what: str) -> StoreLost:
    return StoreLost(
        f"{name!r} {what} while the server had it open; put the original back, or stop the server, restore the file "
        "and start it"
    )
