"""Records in Redis: one list for each session, one round trip for a whole tick. Layout: redis_keys.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellkeeper_service.domain.record import HEADER_BYTES, Header, Record
from cellkeeper_service.domain.store import (
    COMMITTED,
    Commit,
    CommitResult,
    Delete,
    Load,
    Outcome,
    Page,
    StoreError,
    StoreFacts,
)
from cellkeeper_service.store.damage import damaged, read_record
from cellkeeper_service.store.redis_begun import BegunWrite
from cellkeeper_service.store.redis_commits import commit_item
from cellkeeper_service.store.redis_failures import Refused, Unknown
from cellkeeper_service.store.redis_keys import TTL_OFFSET_BYTES, match_pattern, redis_key
from cellkeeper_service.store.redis_link import bulk
from cellkeeper_service.store.redis_scripts import Item, ScriptRun, script
from cellkeeper_service.store.redis_servers import Servers

TOUCH, LEAVE, TTL_OFFSET = bulk(b"1"), bulk(b"0"), bulk(b"%d" % TTL_OFFSET_BYTES)


class RedisStore:
    """Records on one Redis server, or on those of a cluster.

    timeout_ms: for connecting, and for every wait for an answer; the one that `servers` was made with.
    wait_replicas: how many replicas must have a commit before it counts; 0: the server alone decides. A
        commit that fewer have within half of timeout_ms is UNKNOWN.
    """

    def __init__(self, servers: Servers, *, timeout_ms: int = 1000, wait_replicas: int = 0) -> None:
        self.name = servers.name
        self.facts = StoreFacts("unknown")
        self._servers = servers
        self._timeout_s = timeout_ms / 1000.0
        self._wait_replicas = wait_replicas
        wait_ms = max(1, timeout_ms // 2)  # the answer must still come within timeout_ms
        self._wait = (wait_replicas, wait_ms) if wait_replicas else None

    def check(self) -> None:
        """Raises StoreError where a server is not there, too old, a replica, or may evict."""
        self.facts = self._servers.check(self._wait_replicas)

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        items = [Item(redis_key(load.key), TOUCH if load.touch else LEAVE, 1) for load in loads]
        run = ScriptRun(self._servers, script("load"), items, (TTL_OFFSET, 1), timeout_s=self._timeout_s)
        return [_record(load, answer) for load, answer in zip(loads, run.answers(), strict=True)]

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        return self._results(self._run("commit", [commit_item(commit) for commit in commits]))

    def begin_commit(self, commits: Sequence[Commit]) -> BegunWrite | None:
        """Where all records are on one server that is known, and a connection to it without TLS is at rest."""
        link = self._servers.at_hand()
        wire = link.take_idle() if link is not None and commits else None
        if link is None or wire is None:
            return None
        try:
            run = self._run("commit", [commit_item(commit) for commit in commits])
            return BegunWrite(run, run.begin(link, wire), self._results)
        except BaseException:
            link.put_back(wire, dirty=True)
            raise

    def delete_many(self, deletes: Sequence[Delete]) -> list[CommitResult]:
        items = [Item(redis_key(delete.key), bulk(delete.generation), 1) for delete in deletes]
        return self._results(self._run("delete", items))

    def scan(self, tenant: str, model: str, prefix: str, cursor: str, limit: int) -> Page:
        """As the contract says; on a cluster as redis_cluster_scan.py says."""
        return Page(*self._servers.page(match_pattern(tenant, model, prefix), cursor, limit))

    def close(self) -> None:
        self._servers.close()

    def _run(self, name: str, items: Sequence[Item]) -> ScriptRun:
        return ScriptRun(self._servers, script(name), items, wait=self._wait, timeout_s=self._timeout_s)

    def _results(self, run: ScriptRun) -> list[CommitResult]:
        results = [COMMITTED if answer == 1 else _result(answer) for answer in run.answers()]
        if self._wait is not None:
            results = [self._replicated(result, run.replicas.get(number)) for number, result in enumerate(results)]
        return results

    def _replicated(self, result: CommitResult, replicas: Any) -> CommitResult:
        """replicas: how many have it, or an error."""
        if result is not COMMITTED or (isinstance(replicas, int) and replicas >= self._wait_replicas):
            return result
        return CommitResult(
            Outcome.UNKNOWN, message=f"replicas that have it: {replicas}, expected {self._wait_replicas}"
        )


def _record(load: Load, answer: Any) -> Record | StoreError | None:
    if isinstance(answer, StoreError):
        return answer
    if isinstance(answer, bytes):
        return StoreError(f"Redis cannot read session {load.key.session!r}: {answer.decode(errors='replace')}")
    if not answer:
        return None
    if len(answer) < 2:
        return damaged(load.key, "it has a header and no checkpoint")
    return read_record(load.key, answer[0], answer[1], b"".join(answer[2:]))


def _result(answer: Any) -> CommitResult:
    """One answer of commit.lua or delete.lua that does not say "committed", or why there is none."""
    if isinstance(answer, Refused):
        return CommitResult(Outcome.REFUSED, message=str(answer))
    if isinstance(answer, Unknown):
        return CommitResult(Outcome.UNKNOWN, message=str(answer))
    if answer == 0:
        return CommitResult(Outcome.CONFLICT)
    if isinstance(answer, bytes):
        return CommitResult(Outcome.CONFLICT, Header.unpack(answer) if len(answer) == HEADER_BYTES else None)
    kind, text = answer
    outcome = Outcome.REFUSED if kind == b"refused" else Outcome.UNKNOWN
    return CommitResult(outcome, message=f"Redis: {text.decode(errors='replace')}")
