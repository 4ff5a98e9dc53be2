"""Bulk commits in the SQLite store: a few statements for many commits.

One statement at a time, a commit of 256 sessions releases the GIL a thousand times, and each time has to wait for the
loop's thread to get it back.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from cellkeeper_service.domain.store import Commit

from ..expiry import next_expiry_ms
from .rows import damaged_id
from .stored_header import STORED_BYTES, SUMS_BYTES, checkpoint_sums, stored_header

LEAST = 4  # fewer commits are not worth it

_FIND = f"""
    SELECT count(*), json_group_array(record) FROM json_each(?1) AS item CROSS JOIN records
    WHERE tenant = ?3 AND model = ?4 AND session = CAST(item.value AS BLOB) AND expires_ms = 0
    AND checked_header = substr(?2, 1 + {STORED_BYTES} * item.key, {STORED_BYTES})
"""
_MOVE = f"""
    UPDATE records SET checked_header = substr(?2, 1 + {STORED_BYTES} * item.key, {STORED_BYTES})
    FROM json_each(?1) AS item WHERE record = item.value
"""
# ?2: the concatenated ids; an item is [start of its id, its length]. As JSON strings, some ids would be altered.
_ID = "substr(?2, json_extract(item.value, '$[0]'), json_extract(item.value, '$[1]'))"
_ANY_TAKEN = f"""
    SELECT EXISTS (SELECT 1 FROM json_each(?1) AS item CROSS JOIN records
    WHERE tenant = ?3 AND model = ?4 AND session = {_ID})
"""
_NEXT = "SELECT coalesce(max(record), 0) + 1 FROM records"  # the rowid that SQLite assigns next
_CREATE = f"""
    INSERT INTO records (record, tenant, model, session, checked_header, expires_ms)
    SELECT ?5 + item.key, ?3, ?4, {_ID}, substr(?6, 1 + {STORED_BYTES} * item.key, {STORED_BYTES}), ?7
    FROM json_each(?1) AS item
"""
_CHECKPOINT = f"""
    REPLACE INTO checkpoints
    SELECT value, substr(?2, 1 + ?3 * key, ?3), substr(?4, 1 + {SUMS_BYTES} * key, {SUMS_BYTES}) FROM json_each(?1)
"""
_COMPACT = "DELETE FROM chunks WHERE record IN (SELECT value FROM json_each(?1))"
_LOG = """
    INSERT INTO chunks
    SELECT item.value, (SELECT coalesce(max(chunk), 0) + 1 FROM chunks WHERE record = item.value),
    substr(?2, 1 + ?3 * item.key, ?3)
    FROM json_each(?1) AS item
"""


class _Group(NamedTuple):
    """What commits must have in common to be written together. creates: they create their records. checkpoint_bytes: 0
    if they write none."""

    tenant: str
    model: str
    creates: bool
    ttl_ms: int
    log_bytes: int
    checkpoint_bytes: int


def _group_of(commit: Commit) -> _Group | None:
    """Returns the group of a commit that creates a record with its first checkpoint, or continues one that never
    expires; None for all others, which are written one by one."""
    expected, header, log, checkpoint = commit.expected, commit.header, commit.log, commit.checkpoint
    if checkpoint == b"":
        return None
    if expected is None:
        if checkpoint is None or damaged_id(commit.key.session) is not None:
            return None
    elif not log or header.ttl_ms or expected.ttl_ms:
        return None
    sizes = len(log), len(checkpoint or b"")
    return _Group(commit.key.tenant, commit.key.model, expected is None, header.ttl_ms, *sizes)


def commit_groups(connection: sqlite3.Connection, commits: Sequence[Commit], now_ms: int) -> set[int]:
    """Writes as many commits as possible in groups, and returns their indices."""
    done: set[int] = set()
    groups: dict[_Group, list[int]] = {}
    for number, commit in enumerate(commits if len(commits) >= LEAST else ()):
        group = _group_of(commit)
        if group is not None:
            groups.setdefault(group, []).append(number)
    for group, numbers in groups.items():
        if len(numbers) >= LEAST and _commit_group(connection, group, [commits[number] for number in numbers], now_ms):
            done.update(numbers)
    return done


def _commit_group(connection: sqlite3.Connection, group: _Group, commits: Sequence[Commit], now_ms: int) -> bool:
    """Writes these commits, within a write transaction. Returns False if a record is not as expected or occurs twice;
    then nothing was written. now_ms: unix time."""
    records = _create(connection, group, commits, now_ms) if group.creates else _move(connection, group, commits)
    if not records:
        return False
    if group.checkpoint_bytes:
        written = [(commit.header.packed, commit.checkpoint) for commit in commits if commit.checkpoint is not None]
        states = b"".join([state for _, state in written])
        sums = b"".join([checkpoint_sums(header, state) for header, state in written])
        connection.execute(_CHECKPOINT, (records, states, group.checkpoint_bytes, sums))
        connection.execute(_COMPACT, (records,))
    if group.log_bytes:
        connection.execute(_LOG, (records, b"".join([commit.log for commit in commits]), group.log_bytes))
    return True


def _move(connection: sqlite3.Connection, group: _Group, commits: Sequence[Commit]) -> str:
    """Replaces the expected headers with the new ones. Returns the records as JSON, in the order of the commits, or ""
    if one is not as expected or occurs twice; then nothing was written."""
    sessions = json.dumps([commit.key.session for commit in commits])
    expected = b"".join([stored_header(commit.expected.packed) for commit in commits if commit.expected is not None])
    row: tuple[int, str] = connection.execute(_FIND, (sessions, expected, group.tenant, group.model)).fetchone()
    found, records = row  # CROSS JOIN keeps the order of the items
    if found != len(commits) or len(set(json.loads(records))) != found:
        return ""
    connection.execute(_MOVE, (records, _headers(commits)))
    return records


def _create(connection: sqlite3.Connection, group: _Group, commits: Sequence[Commit], now_ms: int) -> str:
    """Creates the records. Returns them as JSON, in the order of the commits, or "" if a session already has a record,
    expired or not, or occurs twice; then nothing was written."""
    ids = [commit.key.session.encode() for commit in commits]
    places, start = [], 1
    for one in ids:
        places.append((start, len(one)))
        start += len(one)
    keys = json.dumps(places), b"".join(ids), group.tenant, group.model
    if len(set(ids)) < len(ids) or connection.execute(_ANY_TAKEN, keys).fetchone()[0]:
        return ""
    first: int = connection.execute(_NEXT).fetchone()[0]
    connection.execute(_CREATE, (*keys, first, _headers(commits), next_expiry_ms(now_ms, group.ttl_ms, 0)))
    return json.dumps(list(range(first, first + len(ids))))


def _headers(commits: Sequence[Commit]) -> bytes:
    return b"".join([stored_header(commit.header.packed) for commit in commits])
