"""The explorer's lists are those that the scripts make on a real Redis."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing

import pytest
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Commit, Delete, Outcome
from cellkeeper_service.store.open import open_store
from cellkeeper_service.store.redis_keys import redis_key

from tests.redis_server import RedisServer
from tests.store.layout1.store import OldStore, name_of
from tests.store.records import HOUR_MS, append, create, inputs, key, replace

from .redis_file import Layout, OldLayout, RedisFile

SESSIONS = ("a", "b")


@pytest.mark.parametrize(("layout", "seed"), [(Layout(), 1), (Layout(), 2), (OldLayout(), 3)])
def test_the_lists_are_those_of_the_scripts(layout: Layout, seed: int) -> None:
    draw, file, records = random.Random(seed), RedisFile(layout), dict[str, Record]()
    old = isinstance(layout, OldLayout)
    with RedisServer() as server, server.client() as client:
        store = OldStore(server.port) if old else open_store(server.url)
        with closing(store):
            for turn in range(60):
                name = draw.choice(SESSIONS)
                before = records.get(name)
                if before is not None and draw.random() < 0.1:
                    (result,) = store.delete_many([Delete(key(name), before.position.generation)])
                    assert result.outcome is Outcome.COMMITTED
                    file.delete(key(name))
                    del records[name]
                else:
                    commit = drawn(draw, name, turn, before)
                    (result,) = store.commit_many([commit])
                    assert result.outcome is Outcome.COMMITTED
                    log = commit.log if commit.checkpoint is not None or before is None else before.log + commit.log
                    state = commit.checkpoint if commit.checkpoint is not None or before is None else before.checkpoint
                    records[name] = Record(commit.header, state or b"", log)
                    file.commit(commit, records[name])
                place: Callable[..., bytes] = name_of if old else redis_key
                found = {each: tuple(client.lrange(place(key(each)), 0, -1)) for each in SESSIONS}
                assert found == {each: file.lists.get(key(each), ()) for each in SESSIONS}


def drawn(draw: random.Random, name: str, turn: int, before: Record | None) -> Commit:
    log = inputs(turn, draw.choice((0, 1, 1, 3)))
    if before is None:
        return create(key(name), seed=turn, log=log)
    if draw.random() < 0.3:
        return replace(key(name), before.header, b"state %d" % turn, log)
    return append(key(name), before.header, log or inputs(turn), ttl_ms=draw.choice((None, None, 0, HOUR_MS)))
