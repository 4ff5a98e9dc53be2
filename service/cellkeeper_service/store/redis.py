"""Records in Redis: one list for each session, one script call for a whole tick. Layout: redis_keys.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellkeeper_service.domain.record import HEADER_BYTES, Header, Record, SessionKey
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Load, Outcome, Page, StoreError
from cellkeeper_service.store.damage import damaged, read_record
from cellkeeper_service.store.expiry import bounded_ttl_ms
from cellkeeper_service.store.redis_check import check_server
from cellkeeper_service.store.redis_keys import TTL_OFFSET_BYTES, match_pattern, redis_key, session_key
from cellkeeper_service.store.redis_link import Link, Refused, Script, Unknown, script

SCAN_COUNT = 1000  # keys that one SCAN looks at, at least
SCAN_ROUNDS = 20  # SCANs for one page, at most: a page may come out short, or empty with a cursor
_CURSOR_MAX = 2**64 - 1


class RedisStore:
    """One Redis server.

    timeout_ms: for connecting, and for every wait for an answer.
    wait_replicas: how many replicas must have a commit before it counts; 0: the server alone decides. A
        commit that fewer have within half of timeout_ms is UNKNOWN.
    """

    name = "redis"

    def __init__(self, url: str, *, timeout_ms: int = 1000, wait_replicas: int = 0) -> None:
        self._link = Link(url, timeout_ms)
        self._wait_replicas = wait_replicas
        self._wait_ms = max(1, timeout_ms // 2)  # the answer must still come within timeout_ms

    def check(self) -> None:
        """Raises StoreError where the server is not there, too old, a replica, a cluster, or may evict."""
        check_server(self._link, self._wait_replicas)

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        if not loads:
            return []
        arguments = [TTL_OFFSET_BYTES, *("1" if load.touch else "0" for load in loads)]
        try:
            (answers,) = self._link.run(script("load"), [redis_key(load.key) for load in loads], arguments)
        except StoreError as error:
            return [error] * len(loads)
        return [_record(load, answer) for load, answer in zip(loads, answers, strict=True)]

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        arguments: list[bytes | str | int] = []
        for commit in commits:
            arguments += (
                "append" if commit.checkpoint is None else "replace",
                b"" if commit.expected is None else commit.expected.pack(),
                commit.header.pack(),
                bounded_ttl_ms(commit.header.ttl_ms),
                commit.log,
            )
            if commit.checkpoint is not None:
                arguments.append(commit.checkpoint)
        return self._write(script("commit"), [redis_key(commit.key) for commit in commits], arguments)

    def delete_many(self, deletes: Sequence[Delete]) -> list[CommitResult]:
        keys = [redis_key(delete.key) for delete in deletes]
        return self._write(script("delete"), keys, [delete.generation for delete in deletes])

    def scan(self, tenant: str, model: str, prefix: str, cursor: str, limit: int) -> Page:
        """As the contract says; a session may be listed on two pages when Redis rehashes in between."""
        if cursor and not (cursor.isascii() and cursor.isdigit() and 0 < int(cursor) <= _CURSOR_MAX):
            raise ValueError(f"cursor: got {cursor!r}, expected one from an earlier page, or an empty one")
        pattern = match_pattern(tenant, model, prefix)
        names: dict[bytes, None] = {}
        at = cursor.encode() or b"0"
        for _ in range(SCAN_ROUNDS):
            at, found = self._link.one("SCAN", at, "MATCH", pattern, "COUNT", SCAN_COUNT)
            names.update(dict.fromkeys(found))
            if at == b"0" or len(names) >= limit:
                break
        return Page(self._headers(list(names)), "" if at == b"0" else at.decode())

    def close(self) -> None:
        self._link.close()

    def _write(
        self, which: Script, keys: Sequence[bytes], arguments: Sequence[bytes | str | int]
    ) -> list[CommitResult]:
        """One script call for all items. (On a cluster this would be one for each hash tag.)"""
        if not keys:
            return []
        wait = [("WAIT", self._wait_replicas, self._wait_ms)] if self._wait_replicas else []
        try:
            answers, *acknowledged = self._link.run(which, keys, arguments, *wait)
        except Refused as error:
            return [CommitResult(Outcome.REFUSED, message=str(error))] * len(keys)
        except Unknown as error:
            return [CommitResult(Outcome.UNKNOWN, message=str(error))] * len(keys)
        results = [_result(answer) for answer in answers]
        if acknowledged and not (isinstance(acknowledged[0], int) and acknowledged[0] >= self._wait_replicas):
            text = f"replicas that have it: {acknowledged[0]}, expected {self._wait_replicas}"
            lagging = CommitResult(Outcome.UNKNOWN, message=text)
            return [lagging if result.outcome is Outcome.COMMITTED else result for result in results]
        return results

    def _headers(self, names: list[bytes]) -> list[tuple[SessionKey, Header]]:
        """The headers of these keys, in one round trip; keys that went meanwhile are left out."""
        sessions = []
        replies = self._link.call(*(("LINDEX", name, 0) for name in names)) if names else []
        for name, header in zip(names, replies, strict=True):
            if isinstance(header, Exception):
                raise StoreError(f"Redis cannot read {name!r}: {header}")
            if header is not None:
                if len(header) != HEADER_BYTES:
                    raise damaged(session_key(name), f"its header has {len(header)} bytes")
                sessions.append((session_key(name), Header.unpack(header)))
        return sessions


def _record(load: Load, answer: Any) -> Record | StoreError | None:
    if isinstance(answer, bytes):
        return StoreError(f"Redis cannot read session {load.key.session!r}: {answer.decode(errors='replace')}")
    if not answer:
        return None
    if len(answer) < 2:
        return damaged(load.key, "it has a header and no checkpoint")
    return read_record(load.key, answer[0], answer[1], b"".join(answer[2:]))


def _result(answer: Any) -> CommitResult:
    """One answer of commit.lua or delete.lua."""
    if answer == 1:
        return CommitResult(Outcome.COMMITTED)
    if answer == 0:
        return CommitResult(Outcome.CONFLICT)
    if isinstance(answer, bytes):
        return CommitResult(Outcome.CONFLICT, Header.unpack(answer) if len(answer) == HEADER_BYTES else None)
    kind, text = answer
    outcome = Outcome.REFUSED if kind == b"refused" else Outcome.UNKNOWN
    return CommitResult(outcome, message=f"Redis: {text.decode(errors='replace')}")
