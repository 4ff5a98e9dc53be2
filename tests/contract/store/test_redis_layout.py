"""A record's list in Redis: as written, as a crash of Redis may leave it, and damaged."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import redis
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Commit, CommitResult, Delete, Load, Outcome, Store, StoreError
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis.keys import redis_key

from testing.redis_server import RedisServer
from tests.contract.store.records import HOUR_MS, append, committed, create, generation, inputs, key, replace

AT = key()
NAME = redis_key(AT)


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[Store]:
    store = open_store(redis_server.url)
    committed(store, create(key("first")))  # a connection's first write, which is pushed twice
    yield store
    store.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


def loaded(store: Store) -> Record | StoreError | None:
    (record,) = store.load_many([Load(AT, touch=False)])
    return record


def pushed_by(store: Store, client: redis.Redis, commit: Commit) -> list[bytes]:
    """Returns what a commit pushes, and undoes the commit."""
    before: list[bytes] = client.lrange(NAME, 0, -1)  # type: ignore[assignment]
    committed(store, commit)
    after: list[bytes] = client.lrange(NAME, 0, -1)  # type: ignore[assignment]
    client.delete(NAME)
    client.rpush(NAME, *before)
    return after[len(before) :] if after[: len(before)] == before else after


def test_one_push_a_commit_and_a_checkpoint_takes_the_place_of_all_before(store: Store, client: redis.Redis) -> None:
    at = committed(store, create(AT, log=inputs(1)))
    assert client.llen(NAME) == 3
    for step in range(3):
        at = committed(store, append(AT, at, inputs(step)))
    assert client.llen(NAME) == 9
    at = committed(store, replace(AT, at, b"state 1", inputs(9)))
    assert client.llen(NAME) == 3
    assert loaded(store) == Record(at, b"state 1", inputs(9))


def test_another_ttl_in_the_middle_of_a_log(store: Store, client: redis.Redis) -> None:
    commits = [create(AT, log=inputs(1))]
    for step, ttl_ms in enumerate([0, HOUR_MS, HOUR_MS, 0, 0, HOUR_MS // 2]):
        commits.append(append(AT, commits[-1].header, inputs(step, step), ttl_ms=ttl_ms))
        committed(store, *commits[-2 if step == 0 else -1 :])
        assert loaded(store) == Record(commits[-1].header, b"state 0", b"".join(commit.log for commit in commits))
        left = client.pttl(NAME)
        assert left == -1 if ttl_ms == 0 else 0.99 * ttl_ms < left <= ttl_ms


def test_steps_and_times_beyond_the_moving_part(store: Store) -> None:
    """An entry itself holds only the low 32 bits of the step and the low 48 of the time."""
    first = create(AT)
    position = first.header.position.changed(step=2**32 - 2)
    header = first.header.replace(position=position, checkpoint_step=position.step, updated_ms=2**48 - 3)
    committed(store, first._replace(header=header))
    log = b""
    for step in range(4):
        commit = append(AT, header, inputs(step))
        after = commit.header.replace(updated_ms=header.updated_ms + 1)
        committed(store, commit._replace(header=after))
        header, log = after, log + inputs(step)
        assert loaded(store) == Record(header, b"state 0", log)
    assert header.position.step == 2**32 + 2


@pytest.mark.parametrize("lost", ["an entry", "two entries", "a checkpoint", "a checkpoint and an entry", "a TTL"])
@pytest.mark.parametrize("then", ["append", "appends", "checkpoint", "nothing"])
@pytest.mark.parametrize("log", [b"", inputs(1)])
def test_what_a_crash_brings_back(store: Store, client: redis.Redis, lost: str, then: str, log: bytes) -> None:
    """`lost` was pushed, was missing while `then` was committed, and is back before it."""
    at = committed(store, create(AT, log=log))
    if log:
        at = committed(store, append(AT, at, inputs(2)))
    stood = loaded(store)
    lost_commits = {
        "an entry": [append(AT, at, inputs(3, 2))],
        "two entries": [one := append(AT, at, inputs(3)), append(AT, one.header, inputs(4))],
        "a checkpoint": [replace(AT, at, b"lost", inputs(3))],
        "a checkpoint and an entry": [one := replace(AT, at, b"lost", inputs(3)), append(AT, one.header, inputs(4))],
        "a TTL": [append(AT, at, b"", ttl_ms=HOUR_MS)],
    }[lost]
    before: list[bytes] = client.lrange(NAME, 0, -1)  # type: ignore[assignment]
    back: list[bytes] = []
    for commit in lost_commits:
        back += pushed_by(store, client, commit)
        client.rpush(NAME, *back)
    after_lost = loaded(store)
    client.delete(NAME)
    client.rpush(NAME, *before)
    assert loaded(store) == stood

    second = append(AT, at, inputs(7))
    commits = {
        "append": [second],
        "appends": [second, append(AT, second.header, inputs(8, 3))],
        "checkpoint": [second, replace(AT, second.header, b"state 2", inputs(8))],
        "nothing": list[Commit](),
    }[then]
    committed(store, *commits) if commits else None
    acknowledged = loaded(store)
    went_on: list[bytes] = client.lrange(NAME, 0, -1)  # type: ignore[assignment]
    client.delete(NAME)
    client.rpush(NAME, *before, *back, *(went_on[len(before) :] if then != "checkpoint" else went_on))
    record = loaded(store)
    assert record == (acknowledged if commits else after_lost)
    assert isinstance(record, Record)
    third = append(AT, record.header, inputs(9))
    assert store.commit_many([third._replace(expected=at)])[0] == CommitResult(Outcome.CONFLICT, record.header)
    committed(store, third)
    assert loaded(store) == Record(third.header, record.checkpoint, record.log + inputs(9))


# C D B, and D S four times. Where: the element, or the byte of one.
DAMAGE: dict[str, tuple[str, tuple[int, ...], str]] = {
    "a hole": ("remove", (5, 6), "lead to a checkpoint"),
    "an entry without its inputs": ("remove", (5,), "lead to a checkpoint"),
    "inputs without their entry": ("remove", (6,), "lead to a checkpoint"),
    "a bit of a chunk": ("flip", (5, -1), "head"),
    "a bit of an entry's mark": ("flip", (8, 4), "do not form a chain"),
    "a bit of the last entry's checksum": ("flip", (10, 12), "belong"),
    "a bit of the base's log": ("flip", (1, -1), "head"),
    "a bit of the base": ("flip", (2, 50), "checksum"),
    "a bit of the checkpoint": ("flip", (0, -1), "checksum"),
    "two chunks in the other's place": ("swap", (3, 5), "follow|head"),
    "no checkpoint": ("remove", (0,), "checkpoint"),
    "no inputs behind the checkpoint": ("remove", (1,), "checkpoint"),
    "no base": ("remove", (2,), "checkpoint"),
    "a base that is too short": ("cut", (2, 100), "checkpoint"),
    "an entry that is too short": ("cut", (10, 20), "damaged"),
    "another's element at the end": ("push", (), "checkpoint"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_its_own_error_alone(store: Store, client: redis.Redis, damage: str) -> None:
    at = committed(store, create(AT, log=inputs(1, 3)))
    for step in range(4):
        at = committed(store, append(AT, at, inputs(step)))
    healthy = committed(store, create(key("healthy"), seed=5, log=inputs(1)))
    kind, places, text = DAMAGE[damage]
    elements: list[bytes] = client.lrange(NAME, 0, -1)  # type: ignore[assignment]
    assert b"".join(element[:1] for element in elements) == b"CDBDSDSDSDS"
    if kind == "remove":
        elements = [element for at, element in enumerate(elements) if at not in places]
    elif kind == "flip":
        flipped = bytearray(elements[places[0]])
        flipped[places[1]] ^= 1
        elements[places[0]] = bytes(flipped)
    elif kind == "swap":
        one, other = places
        elements[one], elements[other] = elements[other], elements[one]
    elif kind == "cut":
        elements[places[0]] = elements[places[0]][: places[1]]
    else:
        elements.append(b"none of ours")
    client.delete(NAME)
    client.rpush(NAME, *elements)
    broken, whole = store.load_many([Load(AT, touch=True), Load(key("healthy"), touch=True)])
    assert whole == Record(healthy, b"state 0", inputs(1))
    assert isinstance(broken, StoreError)
    assert "damaged" in str(broken)
    assert re.search(text, str(broken))
    deletes = [Delete(AT, generation(1)), Delete(key("healthy"), generation(5))]
    assert [result.outcome for result in store.delete_many(deletes)] == [Outcome.COMMITTED] * 2
    assert store.load_many([Load(AT, touch=True), Load(key("healthy"), touch=True)]) == [None, None]
