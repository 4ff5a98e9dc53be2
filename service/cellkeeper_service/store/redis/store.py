"""The Redis store: one list per session, one round trip for a whole tick. keys.py has the layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellkeeper_service.domain.record import HEADER_BYTES, Header, Record, SessionKey
from cellkeeper_service.domain.store import (
    COMMITTED,
    Commit,
    CommitResult,
    Delete,
    Load,
    Outcome,
    Page,
    Postponed,
    StoreError,
    StoreFacts,
)

from .commits import LEAVE, LEAVE_WHOLE, TOUCH, TOUCH_WHOLE, Item, commit_item, delete_item
from .failures import Refused, Unknown, Unreached, not_read, with_advice
from .keys import SUCCESSOR, VERSION, match_pattern, redis_key
from .layout import read_elements
from .pending_write import PendingWrite
from .script_run import ScriptRun
from .servers import Servers

TOO_LARGE = 1  # load.lua's answer for a record too large to be read with others


class RedisStore:
    """Records on one Redis server, or on the servers of a cluster.

    wait_replicas: how many replicas must have a commit before it counts; 0: the primary alone decides. A
        commit that fewer replicas have within half of the servers' timeout is UNKNOWN. A load of such a record fails,
        too: what is answered from it would acknowledge the commit.
    """

    def __init__(self, servers: Servers, wait_replicas: int) -> None:
        self.name = servers.name
        self._facts = StoreFacts("unknown")
        self._servers = servers
        self._wait_replicas = wait_replicas
        wait_ms = max(1, servers.timeout_ms // 2)  # the reply to WAIT must still arrive within the timeout
        self._wait = (wait_replicas, wait_ms) if wait_replicas else None

    def check(self) -> None:
        """Raises StoreError if a server is unreachable, too old, a replica, or may evict, or if a later release has
        begun to write records in a layout that this one does not know."""
        facts = self._servers.check(self._wait_replicas)
        (found,) = self._script_run("load", [Item(SUCCESSOR, LEAVE_WHOLE)]).answers()
        if isinstance(found, StoreError):
            raise found
        if isinstance(found, bytes):
            raise StoreError(
                f"Redis cannot read the key {SUCCESSOR.decode()}: {found.decode(errors='replace')}; delete it"
            )
        if found:
            layout = found[-1].decode(errors="replace")
            raise StoreError(
                f"Redis has records of layout {layout!r}, expected {VERSION}; start the Cellkeeper version that wrote "
                "them, or name another database"
            )
        self._facts = facts

    @property
    def facts(self) -> StoreFacts:
        return self._facts._replace(restarts=self._servers.runs.restarts)

    def load_many(self, loads: Sequence[Load]) -> list[Record | StoreError | None]:
        touch, leave = (TOUCH, LEAVE) if len(loads) > 1 else (TOUCH_WHOLE, LEAVE_WHOLE)
        items = [Item(redis_key(load.key), touch if load.touch else leave) for load in loads]
        run = self._script_run("load", items, wait=self._wait)
        results = [_record(load.key, found) for load, found in zip(loads, run.answers(), strict=True)]
        if self._wait is None:
            return results
        return [self._replicated_load(result, run.replicas.get(number)) for number, result in enumerate(results)]

    def commit_many(self, commits: Sequence[Commit]) -> list[CommitResult]:
        return self._results(self._script_run("write", [commit_item(commit) for commit in commits], wait=self._wait))

    def begin_commit(self, commits: Sequence[Commit]) -> PendingWrite | None:
        """Begins a commit, or returns None unless one known server has every record and an idle plain connection."""
        link = self._servers.at_hand()
        wire = link.take_idle() if link is not None and commits else None
        if link is None or wire is None:
            return None
        try:
            run = self._script_run("write", [commit_item(commit) for commit in commits], wait=self._wait)
            return PendingWrite(run, link, wire, self._results)
        except BaseException:
            link.put_back(wire, dirty=True)
            raise

    def delete_many(self, deletes: Sequence[Delete]) -> list[CommitResult]:
        items = [delete_item(redis_key(delete.key), delete.generation) for delete in deletes]
        return self._results(self._script_run("write", items, apart=True, wait=self._wait))

    def scan(self, tenant: str, model: str, prefix: str, cursor: str, limit: int) -> Page:
        """Lists sessions as `Store.scan` says; cluster_scan.py says how on a cluster."""
        return Page(*self._servers.page(match_pattern(tenant, model, prefix), cursor, limit))

    def close(self) -> None:
        self._servers.close()

    def _script_run(
        self, name: str, items: Sequence[Item], *, apart: bool = False, wait: tuple[int, int] | None = None
    ) -> ScriptRun:
        return ScriptRun(self._servers, name, items, apart, wait)

    def _results(self, run: ScriptRun) -> list[CommitResult]:
        results = [COMMITTED if answer == 1 else _result(answer) for answer in run.answers()]
        if self._wait is not None:
            results = [self._replicated(result, run.replicas.get(number)) for number, result in enumerate(results)]
        return results

    def _replicated(self, result: CommitResult, replicas: Any) -> CommitResult:
        """Turns COMMITTED into UNKNOWN if too few replicas have the commit. replicas: how many do, or an error."""
        if result is not COMMITTED or self._enough(replicas):
            return result
        return CommitResult(Outcome.UNKNOWN, message=self._too_few("the commit", replicas))

    def _replicated_load(self, result: Record | StoreError | None, replicas: Any) -> Record | StoreError | None:
        """Turns a record, or the news that there is none, into an error if too few replicas have it. replicas: how many
        have what was read, or an error."""
        if isinstance(result, StoreError) or self._enough(replicas):
            return result
        return Unknown(self._too_few("what was read", replicas))

    def _enough(self, replicas: Any) -> bool:
        return isinstance(replicas, int) and replicas >= self._wait_replicas

    def _too_few(self, what: str, replicas: Any) -> str:
        if isinstance(replicas, Exception):
            return f"Redis does not say how many replicas have {what}: {with_advice(str(replicas))}"
        return f"replicas that have {what}: {replicas}, expected {self._wait_replicas}"


def _record(key: SessionKey, found: Any) -> Record | StoreError | None:
    """Returns the record in an answer of load.lua."""
    if isinstance(found, int):
        return Postponed(found == TOO_LARGE)
    if isinstance(found, StoreError):
        return found
    if isinstance(found, bytes):
        return not_read(key, found)
    return read_elements(key, found) if found else None


def _result(answer: Any) -> CommitResult:
    """Returns the result for an answer of write.lua other than "done", or for an error in place of an answer."""
    if isinstance(answer, Refused):
        outcome = Outcome.UNREACHED if isinstance(answer, Unreached) else Outcome.REFUSED
        return CommitResult(outcome, message=str(answer))
    if isinstance(answer, StoreError):
        return CommitResult(Outcome.UNKNOWN, message=str(answer))
    if answer == 0:
        return CommitResult(Outcome.CONFLICT)
    if isinstance(answer, bytes):
        return CommitResult(Outcome.CONFLICT, Header.unpack(answer) if len(answer) == HEADER_BYTES else None)
    kind, text = answer
    if kind == b"damaged":  # not the expected record; the load that follows a conflict finds out why
        return CommitResult(Outcome.CONFLICT)
    return CommitResult(Outcome.REFUSED, message=f"Redis: {with_advice(text.decode(errors='replace'))}")
