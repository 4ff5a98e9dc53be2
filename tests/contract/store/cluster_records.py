"""Records of sixty sessions, spread over the nodes of a Redis Cluster."""

from __future__ import annotations

from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import Commit, CommitResult, Load, Outcome, Store
from cellkeeper_service.store.redis.keys import redis_key

from testing.redis_cluster import slot_of
from tests.contract.store.records import append, create, inputs, key

TIMEOUT_MS = 1000  # it passes where a node does not answer
PATIENCE_MS = 20_000  # where it must not pass, however busy the machine is
SESSIONS = [f"s{n}" for n in range(60)]


def slot(session: str) -> int:
    return slot_of(redis_key(key(session)))


def create_all(store: Store, names: list[str]) -> dict[str, Header]:
    commits = [create(key(name), seed=n) for n, name in enumerate(names)]
    assert store.commit_many(commits) == [CommitResult(Outcome.COMMITTED)] * len(names)
    return {name: commit.header for name, commit in zip(names, commits, strict=True)}


def append_all(store: Store, headers: dict[str, Header], seed: int) -> tuple[list[Commit], list[CommitResult]]:
    commits = [append(key(name), header, inputs(seed)) for name, header in headers.items()]
    return commits, store.commit_many(commits)


def load_all(store: Store, names: list[str]) -> dict[str, Header]:
    records = dict(zip(names, store.load_many([Load(key(name), touch=True) for name in names]), strict=True))
    assert {name: record for name, record in records.items() if not isinstance(record, Record)} == {}
    return {name: record.header for name, record in records.items() if isinstance(record, Record)}
