"""The explored store does what the scripts do: random commits and deletes, in a real Redis and in the model."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from cellkeeper_service.domain.position import advance, first_position
from cellkeeper_service.domain.record import Header, SessionKey
from cellkeeper_service.domain.store import Commit, Delete
from cellkeeper_service.store.redis.keys import redis_key
from cellkeeper_service.store.redis.script import script

from testing.redis_server import RedisServer
from tests.contract.store.records import STEP_BYTES, generation, header

from . import layout1, layout2
from .layout2 import Call, Peer
from .redis_lists import Lists

KEYS = [SessionKey("", "weather", session) for session in ("a", "b", "c")]
OLD = Path(__file__).parents[2] / "tests" / "contract" / "store" / "layout1"


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with RedisServer({"appendfsync": "no"}) as server, server.client() as client:
        yield client


@pytest.mark.parametrize("layout", [layout1, layout2], ids=["layout 1", "layout 2"])
def test_the_model_does_what_the_scripts_do(client: redis.Redis, layout: Any) -> None:
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    draw = random.Random(seed)
    seen: set[str] = set()
    for _ in range(12):
        client.flushall()
        lists: Lists = {}
        for _ in range(40):
            peer = Peer(draw.random() < 0.3, draw.choice((b"run1", b"run1", b"run2")))
            if draw.random() < 0.3:
                names = [redis_key(one) for one in draw.sample(KEYS, 2)]
                _load(client, layout, names, peer)
                layout.load(lists, names, peer)
            calls, what = _drawn(draw, layout, lists)
            for call in calls:
                real = _real(client, layout, call, peer)
                answers, _ = layout.run(lists, call, peer)
                assert real == answers, call
                seen.add(what)
            for key in KEYS:
                name = redis_key(key)
                assert tuple(client.lrange(name, 0, -1)) == lists.get(name, ()), what
    assert seen == {"append", "whole", "replace", "create", "delete", "another"}


def _drawn(draw: random.Random, layout: Any, lists: Lists) -> tuple[list[Call], str]:
    """Returns runs of the script that make some commits, or a delete."""
    keys = draw.sample(KEYS, draw.choice((1, 1, 2, 3)))
    standing: list[Header | None] = [layout.header(lists.get(redis_key(key), ())) for key in keys]
    if draw.random() < 0.1:
        number = draw.randrange(2) if standing[0] is None or draw.random() < 0.2 else -1
        minted = generation(number) if number >= 0 or standing[0] is None else standing[0].position.generation
        before, call, after = layout.delete_calls(Delete(keys[0], minted))
        return [*before, call, *after], "delete"
    what = draw.choice(("append", "append", "append", "whole", "replace", "replace", "create", "another"))
    commits = [_commit(draw, what, key, header) for key, header in zip(keys, standing, strict=True)]
    before, call, after = layout.commit_calls(commits)
    return [*before, call, *after], what


def _commit(draw: random.Random, what: str, key: SessionKey, standing: Header | None) -> Commit:
    log = draw.randbytes(STEP_BYTES * draw.randrange(1, 4))
    if standing is None or what == "create":
        position = advance(first_position(generation(draw.randrange(2))), log, STEP_BYTES)
        return Commit(key, None, header(position, 0), log, draw.randbytes(8))
    if what == "another":  # it expects something other than what is there
        standing = standing.replace(updated_ms=7)
    position = advance(standing.position, log, STEP_BYTES)
    if what == "replace":
        after = standing.replace(
            position=position, checkpoint_step=standing.position.step, checkpoint_head=standing.position.head
        )
        return Commit(key, standing, after, log, draw.randbytes(8))
    after = standing.replace(position=position, updated_ms=draw.randrange(1 << 40))
    if what == "whole":
        after = after.replace(numerics=draw.randbytes(8))
    return Commit(key, standing, after, log, None)


def _load(client: redis.Redis, layout: Any, names: list[bytes], peer: Peer) -> None:
    if layout is layout2:
        client.eval(script("load").text.decode(), len(names), *names, _told(peer), "leave")


def _told(peer: Peer) -> bytes:
    return (b"1" if peer.first_write else b"0") + peer.run


def _real(client: redis.Redis, layout: Any, call: Call, peer: Peer) -> list[Any]:
    names = [name for name, _ in call]
    if layout is layout2:
        kinds = {kind for _, (kind, *_) in call}
        alike = len(kinds) == 1
        words = [word for _, words in call for word in (words[1:] if alike else words)]
        kind = kinds.pop() if alike else b""
        return list(client.eval(script("write").text.decode(), len(names), *names, _told(peer), kind, *words))
    if call[0][1][0] == b"delete":
        text = (OLD / "delete.lua").read_text()
        return list(client.eval(text, len(names), *names, *(words[1] for _, words in call)))
    # An empty ttl_ms comes before the log: the keys have no TTL, and need none.
    old = [word for _, words in call for word in (*words[:3], b"", *words[3:])]
    return list(client.eval((OLD / "commit.lua").read_text(), len(names), *names, *old))
