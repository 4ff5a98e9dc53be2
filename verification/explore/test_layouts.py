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
from .redis_lists import NOTHING, List, Lists

TTL_MS, LONG_MS = 10_000_000, 20_000_000
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
        clocks: dict[bytes, int] = {}
        for _ in range(40):
            peer = Peer(draw.random() < 0.3, draw.choice((b"run1", b"run1", b"run2")), clocks)
            if draw.random() < 0.2:
                _pass_time(draw, client, lists, clocks)
            if draw.random() < 0.3:
                names = [redis_key(one) for one in draw.sample(KEYS, 2)]
                how = draw.choice(("touch", "leave"))
                _load(client, layout, names, peer, how)
                layout.load(lists, names, names if how == "touch" else [], peer)
            there = {name: one for name, one in lists.items() if not peer.is_over(name, one.deadline)}
            calls, what = _drawn(draw, layout, there)
            for call in calls:
                real = _real(client, layout, call, peer)
                answers, _ = layout.run(lists, call, peer)
                assert real == answers, call
                seen.add(what)
            for key in KEYS:
                name = redis_key(key)
                there = {name: one for name, one in lists.items() if not peer.is_over(name, one.deadline)}
                assert tuple(client.lrange(name, 0, -1)) == there.get(name, NOTHING).elements, what
                if layout is layout2:
                    _check_deadline(client, name, there.get(name, NOTHING), clocks)
    assert seen == {"append", "whole", "replace", "create", "delete", "another"}


def _pass_time(draw: random.Random, client: redis.Redis, lists: Lists, clocks: dict[bytes, int]) -> None:
    """Leaves a key that expires 95 or 50 % of its TTL, or nothing."""
    for name, (_, deadline) in lists.items():
        if deadline is None or deadline - clocks.get(name, 0) > 2 * LONG_MS or not client.exists(name):
            continue
        left_ms = draw.choice((int(0.95 * TTL_MS), TTL_MS // 2, 0))
        clocks[name] = deadline - left_ms
        client.pexpire(name, max(1, left_ms))
        while not left_ms and client.exists(name):
            pass
        return


def _check_deadline(client: redis.Redis, name: bytes, one: List, clocks: dict[bytes, int]) -> None:
    left_ms = int(client.pttl(name))
    if not one.elements:
        assert left_ms == -2
    elif one.deadline is None:
        assert left_ms == -1
    else:
        assert left_ms == pytest.approx(one.deadline - clocks.get(name, 0), abs=TTL_MS // 100)


def _drawn(draw: random.Random, layout: Any, lists: Lists) -> tuple[list[Call], str]:
    """Returns runs of the script that make some commits, or a delete."""
    keys = draw.sample(KEYS, draw.choice((1, 1, 2, 3)))
    standing: list[Header | None] = [layout.header(lists.get(redis_key(key), NOTHING).elements) for key in keys]
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
    ttl_ms = draw.choice((0, TTL_MS, LONG_MS))
    if standing is None or what == "create":
        position = advance(first_position(generation(draw.randrange(2))), log, STEP_BYTES)
        return Commit(key, None, header(position, 0, ttl_ms=ttl_ms), log, draw.randbytes(8))
    if what == "another":  # it expects something other than what is there
        standing = standing.replace(updated_ms=7)
    position = advance(standing.position, log, STEP_BYTES)
    if what == "replace":
        after = standing.replace(
            position=position,
            checkpoint_step=standing.position.step,
            checkpoint_head=standing.position.head,
            ttl_ms=draw.choice((standing.ttl_ms, ttl_ms)),
        )
        return Commit(key, standing, after, log, draw.randbytes(8))
    after = standing.replace(position=position, updated_ms=draw.randrange(1 << 40))
    if what == "whole":
        after = after.replace(numerics=draw.randbytes(8), ttl_ms=draw.choice((standing.ttl_ms, ttl_ms)))
    return Commit(key, standing, after, log, None)


def _load(client: redis.Redis, layout: Any, names: list[bytes], peer: Peer, how: str) -> None:
    if layout is layout2:
        client.eval(script("load").text.decode(), len(names), *names, _told(peer), how)


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
