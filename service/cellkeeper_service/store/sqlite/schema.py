"""The tables of the SQLite store, and how a file is opened.

    records      one row per session: its key, its header (stored_header.py), when it expires (unix ms; 0: never)
    checkpoints  one row per session: the state, and its checksums (4 bytes, of the state alone: written before layout
                 4; NULL: before layout 2); separate from the header, so that an append does not rewrite the state
    chunks       the input log, one row per chunk, in order of `chunk`

The file's application_id marks it as Cellkeeper's; its user_version is the layout.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from pathlib import Path

from cellkeeper_service.domain.store import StoreError

from .space import free_bytes, is_full, is_io_error
from .stored_header import with_checksum

_logger = logging.getLogger(__name__)

APPLICATION_ID = 0x43656C6C
SCHEMA_VERSION = 4

_TABLES = (
    """CREATE TABLE records (
        record INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        session BLOB NOT NULL,
        checked_header BLOB NOT NULL,
        expires_ms INTEGER NOT NULL,
        UNIQUE (tenant, model, session)
    )""",
    "CREATE INDEX records_by_expiry ON records (expires_ms) WHERE expires_ms > 0",
    "CREATE TABLE checkpoints (record INTEGER PRIMARY KEY, state BLOB NOT NULL, sums BLOB)",
    """CREATE TABLE chunks (
        record INTEGER NOT NULL,
        chunk INTEGER NOT NULL,
        inputs BLOB NOT NULL,
        PRIMARY KEY (record, chunk)
    ) WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_UPGRADES = {
    1: ("ALTER TABLE checkpoints ADD COLUMN checksum BLOB", "PRAGMA user_version = 2"),
    2: (
        "ALTER TABLE records RENAME COLUMN header TO checked_header",
        "UPDATE records SET checked_header = with_checksum(checked_header)",
        "PRAGMA user_version = 3",
    ),
    3: ("ALTER TABLE checkpoints RENAME COLUMN checksum TO sums", "PRAGMA user_version = 4"),
}
"""By old layout: the statements that convert it to the next one. Older versions of the service refuse to open a
converted file. SQLite rejects what those that still have it open read, but not all that they write: stop them first."""


def open_file(path: Path, timeout_ms: int, *, make: bool) -> sqlite3.Connection:
    """Opens a connection to the file, and creates or converts its tables. make: create the file if it is missing.

    Callers begin and end transactions explicitly. A commit is on disk when it returns (synchronous FULL). Raises
    StoreError.
    """
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'rwc' if make else 'rw'}",
            uri=True,
            timeout=timeout_ms / 1000.0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
    except sqlite3.Error as error:
        raise StoreError(f"SQLite cannot open {str(path)!r}: {error}; check the path and its permissions") from error
    try:
        _prepare(connection, path, timeout_ms)
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"SQLite cannot use {str(path)!r}: {error}; {_what_to_do(error, path)}") from error
    except StoreError:
        connection.close()
        raise
    return connection


def _what_to_do(error: sqlite3.Error, path: Path) -> str:
    """Returns what to do about a file that SQLite has opened and cannot use."""
    folder = path.absolute().parent
    if is_full(error):
        return f"make room on its disk ({free_bytes(folder)})"
    if is_io_error(error):  # also that of a full disk, if the write-ahead log cannot be made
        return f"make room on its disk ({free_bytes(folder)}), or check it"
    if "readonly" in str(error):
        return f"let the server write to it and to its folder, {str(folder)!r}, and mount them for writing"
    if "locked" in str(error):
        return "another program writes to it, or has locked it; end that program, and start again"
    if "malformed" in str(error):
        return "restore it from a backup, or name another"
    return "name a Cellkeeper file or a new one"


def _prepare(connection: sqlite3.Connection, path: Path, timeout_ms: int) -> None:
    connection.execute("BEGIN")
    try:
        version = _layout(connection, path)  # checked first, so that another program's file stays untouched
    finally:
        if connection.in_transaction:  # some errors have ended it
            connection.execute("ROLLBACK")
    mode = _write_ahead(connection, timeout_ms)
    if mode != "wal":
        raise StoreError(f"SQLite uses journal mode {mode!r} for {str(path)!r}, expected 'wal'; use a local disk")
    connection.execute("PRAGMA synchronous = FULL")
    if version == SCHEMA_VERSION:
        return
    connection.create_function("with_checksum", 1, with_checksum, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = version = _layout(connection, path)  # another process may have converted it in the meantime
        while version != SCHEMA_VERSION:
            for statement in _UPGRADES.get(version, _TABLES):
                connection.execute(statement)
            version = _layout(connection, path)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if before not in (0, SCHEMA_VERSION):
        _logger.info(
            "sqlite: converted '%s' from layout %d to %d; releases before this layout refuse it from now on",
            path,
            before,
            SCHEMA_VERSION,
        )


def _write_ahead(connection: sqlite3.Connection, timeout_ms: int) -> str:
    """Turns on the write-ahead log, and returns the resulting journal mode."""
    deadline = time.monotonic() + timeout_ms / 1000.0
    while True:
        is_last = time.monotonic() > deadline  # asked before: one attempt may take longer than the timeout
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError:
            # If two processes open a new file at once, SQLite reports "locked" without waiting for its timeout.
            if is_last:
                raise
        time.sleep(0.005)


def _layout(connection: sqlite3.Connection, path: Path) -> int:
    """Returns the file's layout, 0 if empty. Raises StoreError for another program's file or an unknown layout."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (application, version, tables) == (0, 0, 0):
        return 0
    if application != APPLICATION_ID:
        raise StoreError(f"{str(path)!r} is a database of another program; name a Cellkeeper file or a new one")
    if version != SCHEMA_VERSION and version not in _UPGRADES:
        raise StoreError(
            f"{str(path)!r} has layout {version}, expected {SCHEMA_VERSION}; start the Cellkeeper version "
            "that wrote it, or name a new file"
        )
    return int(version)
