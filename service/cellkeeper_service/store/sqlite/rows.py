"""Records as rows: what a transaction of the SQLite store does for each session.

A damaged row may hold a value of another type than its column's. So values are cast where they are read, and a row
concerns only its session.

Session ids that are not UTF-8 cannot have been sent by a client, so the file was damaged or edited. Listings show them
with their bad bytes escaped ("pump-\\xff"), and a delete with the id as shown finds them.
"""

from __future__ import annotations

import re
import sqlite3

from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import COMMITTED, Commit, CommitResult, DamagedRecord, Delete, Outcome

from ..damage import BAD_ID, damaged, read_record, reading
from ..expiry import next_expiry_ms
from .stored_header import checkpoint_sums, checksum_of, read_stored, standing_header, stored_header

_DAMAGED = ("database disk image is malformed", "Could not decode to UTF-8")
NO_CHECKPOINT = "a first commit without a checkpoint"
OLD_SUMS_BYTES = 4  # layouts 2 and 3: the state's checksum alone
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def find(connection: sqlite3.Connection, key: SessionKey) -> tuple[int, bytes, int] | None:
    """Returns (record, stored header, expires_ms) of a session, expired or not, or None. The header is empty if the
    row's id is not UTF-8, so that no commit can continue such a row."""
    query = (
        "SELECT record, CAST(checked_header AS BLOB), CAST(expires_ms AS INTEGER) FROM records "
        "WHERE tenant = ? AND model = ? AND session = ?"
    )
    row: tuple[int, bytes, int] | None = connection.execute(
        query, (key.tenant, key.model, key.session.encode())
    ).fetchone()
    if row is None and (raw := damaged_id(key.session)) is not None:
        row = connection.execute(query, (key.tenant, key.model, raw)).fetchone()
        return None if row is None else (row[0], b"", row[2])
    return row


def is_expired(expires_ms: int, now_ms: int) -> bool:
    return 0 < expires_ms <= now_ms


def log_bytes(connection: sqlite3.Connection, record: int) -> int:
    """Returns the length of a record's log; 0 if it is damaged, as `load` then says. SQLite does not read it."""
    query = "SELECT coalesce(sum(length(inputs)), 0) FROM chunks WHERE record = ?"
    try:
        return int(connection.execute(query, (record,)).fetchone()[0])
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return 0


def load(connection: sqlite3.Connection, key: SessionKey, record: int, stored: bytes) -> Record | DamagedRecord:
    """Reads the record of the row `record`, within a transaction. Raises sqlite3.Error if the file cannot be read."""
    if not stored and damaged_id(key.session) is not None:
        return damaged(key, BAD_ID)
    try:
        return reading(key, standing_header(stored), lambda: _load(connection, key, record, stored))
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return damaged(key, f"SQLite cannot read it: {error}", standing_header(stored))


def _load(connection: sqlite3.Connection, key: SessionKey, record: int, stored: bytes) -> Record | DamagedRecord:
    header = read_stored(key, stored)
    if isinstance(header, DamagedRecord):
        return header
    query = "SELECT CAST(state AS BLOB), sums FROM checkpoints WHERE record = ?"
    row = connection.execute(query, (record,)).fetchone()
    if row is None:
        return damaged(key, "it has a header but no checkpoint", header)
    state, sums = row
    if sums is not None:  # otherwise it was written in layout 1
        if not isinstance(sums, bytes) or sums[:4] != checksum_of(state):
            return damaged(key, "its checkpoint does not match its checksum", header)
        if sums != checkpoint_sums(header.packed, state) and len(sums) != OLD_SUMS_BYTES:
            return damaged(key, "its checkpoint is that of another step or session", header)
    chunks = connection.execute("SELECT CAST(inputs AS BLOB) FROM chunks WHERE record = ? ORDER BY chunk", (record,))
    return read_record(key, header.packed, state, b"".join(chunk for (chunk,) in chunks))


def apply_commit(connection: sqlite3.Connection, commit: Commit, now_ms: int) -> CommitResult:
    """Applies one commit, within a write transaction."""
    row = find(connection, commit.key)
    if row is not None and is_expired(row[2], now_ms):
        remove(connection, row[0])
        row = None
    expected = None if commit.expected is None else stored_header(commit.expected.packed)
    if (None if row is None else row[1]) != expected:
        return CommitResult(Outcome.CONFLICT, None if row is None else standing_header(row[1]))
    header = stored_header(commit.header.packed)
    if row is None:
        if commit.checkpoint is None:
            return CommitResult(Outcome.REFUSED, message=NO_CHECKPOINT)
        session, expires_ms = commit.key.session.encode(), next_expiry_ms(now_ms, commit.header.ttl_ms, 0)
        record = connection.execute(
            "INSERT INTO records (tenant, model, session, checked_header, expires_ms) VALUES (?, ?, ?, ?, ?)",
            (commit.key.tenant, commit.key.model, session, header, expires_ms),
        ).lastrowid
    else:
        record, _, expires_ms = row
        _update(connection, record, header, expires_ms, next_expiry_ms(now_ms, commit.header.ttl_ms, expires_ms))
    if commit.checkpoint is not None:
        row_of = (record, commit.checkpoint, checkpoint_sums(commit.header.packed, commit.checkpoint))
        connection.execute("REPLACE INTO checkpoints VALUES (?, ?, ?)", row_of)
        connection.execute("DELETE FROM chunks WHERE record = ?", (record,))
    if commit.log:
        connection.execute(
            "INSERT INTO chunks SELECT ?1, coalesce(max(chunk), 0) + 1, ?2 FROM chunks WHERE record = ?1",
            (record, commit.log),
        )
    return COMMITTED


def apply_delete(connection: sqlite3.Connection, delete: Delete, now_ms: int) -> CommitResult:
    """Applies one delete, within a write transaction."""
    row = find(connection, delete.key)
    if row is None or is_expired(row[2], now_ms):
        return CommitResult(Outcome.CONFLICT)
    record, stored, _ = row
    standing = standing_header(stored)
    if standing is not None and standing.position.generation != delete.generation:
        return CommitResult(Outcome.CONFLICT, standing)
    remove(connection, record)
    return COMMITTED


def sweep(connection: sqlite3.Connection, now_ms: int, limit: int) -> None:
    """Removes at most `limit` expired records, within a write transaction."""
    expired = connection.execute(
        "SELECT record FROM records WHERE expires_ms > 0 AND expires_ms <= ? LIMIT ?", (now_ms, limit)
    ).fetchall()
    for (record,) in expired:
        remove(connection, record)


def remove(connection: sqlite3.Connection, record: int) -> None:
    """Removes the record with its checkpoint and log, within a write transaction."""
    for table in ("records", "checkpoints", "chunks"):
        connection.execute(f"DELETE FROM {table} WHERE record = ?", (record,))


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Returns True if the error concerns what was read, not the file or the disk as a whole."""
    return str(error).startswith(_DAMAGED)


def _update(connection: sqlite3.Connection, record: int, header: bytes, before_ms: int, expires_ms: int) -> None:
    if expires_ms == before_ms:  # the usual case, which need not update the index on expires_ms
        connection.execute("UPDATE records SET checked_header = ? WHERE record = ?", (header, record))
    else:
        connection.execute(
            "UPDATE records SET checked_header = ?, expires_ms = ? WHERE record = ?", (header, expires_ms, record)
        )


def shown_id(raw: bytes) -> str:
    """Returns the id as listings show it; UTF-8 is shown unchanged."""
    return raw.decode("utf-8", "backslashreplace")


def is_damaged_id(raw: bytes) -> bool:
    """Returns True if the id is not UTF-8."""
    return shown_id(raw).encode() != raw


def damaged_id(session: str) -> bytes | None:
    """Returns the id that is not UTF-8 and that listings show as `session`, or None if there can be none."""
    if "\\x" not in session:
        return None
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), session.encode())
    return raw if is_damaged_id(raw) and shown_id(raw) == session else None
