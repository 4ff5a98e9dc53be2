"""Many commits at once in the SQLite store: a few statements for all of them.

Statement by statement a commit of 256 sessions lets go of the interpreter's lock a thousand times, and waits for the
loop's thread each time it wants it back.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from cellkeeper_service.domain.record import HEADER_BYTES
from cellkeeper_service.domain.store import Commit
from cellkeeper_service.store.sqlite.rows import checksum_of

LEAST = 4  # fewer are not worth it

_FIND = f"""
    SELECT count(*), json_group_array(record) FROM json_each(?1) AS item CROSS JOIN records
    WHERE tenant = ?3 AND model = ?4 AND session = CAST(item.value AS BLOB) AND expires_ms = 0
    AND header = substr(?2, 1 + {HEADER_BYTES} * item.key, {HEADER_BYTES})
"""
_MOVE = f"""
    UPDATE records SET header = substr(?2, 1 + {HEADER_BYTES} * item.key, {HEADER_BYTES})
    FROM json_each(?1) AS item WHERE record = item.value
"""
_CHECKPOINT = """
    REPLACE INTO checkpoints
    SELECT value, substr(?2, 1 + ?3 * key, ?3), substr(?4, 1 + 4 * key, 4) FROM json_each(?1)
"""
_COMPACT = "DELETE FROM chunks WHERE record IN (SELECT value FROM json_each(?1))"
_LOG = """
    INSERT INTO chunks
    SELECT item.value, (SELECT coalesce(max(chunk), 0) + 1 FROM chunks WHERE record = item.value),
    substr(?2, 1 + ?3 * item.key, ?3)
    FROM json_each(?1) AS item
"""


class Group(NamedTuple):
    """What commits have in common that can be made at once. checkpoint_bytes: 0 where they have none."""

    tenant: str
    model: str
    log_bytes: int
    checkpoint_bytes: int


def group_of(commit: Commit) -> Group | None:
    """None: it is none of the ordinary kind, which goes on with a record that never expires."""
    expected, header = commit.expected, commit.header
    if expected is None or not commit.log or commit.checkpoint == b"" or header.ttl_ms or expected.ttl_ms:
        return None
    return Group(commit.key.tenant, commit.key.model, len(commit.log), len(commit.checkpoint or b""))


def commit_group(connection: sqlite3.Connection, group: Group, commits: Sequence[Commit]) -> bool:
    """Makes these commits, in a write transaction. False: some record does not stand where it was expected, or is meant
    twice, and nothing was done."""
    sessions = json.dumps([commit.key.session for commit in commits])
    expected = b"".join([commit.expected.packed for commit in commits if commit.expected is not None])
    row = connection.execute(_FIND, (sessions, expected, group.tenant, group.model)).fetchone()
    found, records = row  # CROSS JOIN keeps the order of the items
    if found != len(commits) or len(set(json.loads(records))) != found:
        return False
    connection.execute(_MOVE, (records, b"".join([commit.header.packed for commit in commits])))
    if group.checkpoint_bytes:
        states = b"".join([commit.checkpoint for commit in commits if commit.checkpoint is not None])
        sums = b"".join([checksum_of(commit.checkpoint) for commit in commits if commit.checkpoint is not None])
        connection.execute(_CHECKPOINT, (records, states, group.checkpoint_bytes, sums))
        connection.execute(_COMPACT, (records,))
    connection.execute(_LOG, (records, b"".join([commit.log for commit in commits]), group.log_bytes))
    return True
