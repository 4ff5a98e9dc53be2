"""Versions of a model are exchanged while sessions of the old one are idle, cached or in the middle of a request."""

from __future__ import annotations

import random

import pytest
from cellkeeper_service.core.generation_requests import Open, OpenReply
from cellkeeper_service.core.models import Version
from cellkeeper_service.core.requests import StepReply
from cellkeeper_service.domain.meter import EvictionReason, Meter
from cellkeeper_service.domain.position import advance

from .acts import at_rest, opened, standing, until
from .counting_engine import CountingEngine, expected
from .world import FOREVER, Reply, World, key, pack, reason

NEW = b"\2"


def exchange(world: World, keep: bool, version: bytes = NEW) -> Version:
    """Makes this version serve new sessions. Those served before stay beside it if `keep`, otherwise they retire."""
    models = world.replicas[0].models
    served = models.find(version * 32) or Version(CountingEngine(version=version), 4, 3)
    others = [other for other in models if other is not served]
    models.exchange([served, *others] if keep else [served])
    return served


def swept(world: World) -> None:
    """Sweeps, as the loop does many times a second."""
    world.replicas[0].core.expire()
    world.settle()


def test_old_sessions_go_on_with_their_version_and_new_ones_take_the_new() -> None:
    world = World()
    start = opened(world)
    before = world.step([1], start)
    new = exchange(world, keep=True)
    after = world.step([2], before.position)
    assert after.outputs["prediction"].tolist() == expected([1, 2])[1:]
    assert after.served.spec.fingerprint == standing(world).header.fingerprint == b"\1" * 32
    reply = world.step([1], session="t")
    assert (reply.created, reply.served) == (True, new)
    assert standing(world, "t").header.fingerprint == NEW * 32
    opened(world, "u")
    assert standing(world, "u").header.fingerprint == NEW * 32
    swept(world)
    at_rest(world)


def test_an_old_version_comes_back() -> None:
    world = World()
    old = world.replicas[0].version
    exchange(world, keep=True)
    assert exchange(world, keep=True, version=b"\1") is old
    assert world.step([1], session="t").served is old


def test_a_version_that_is_loaded_again_takes_over_what_is_cached() -> None:
    """Its bundle goes and comes back before the sweep. What stayed on the old engine would keep it in memory."""
    world = World()
    at = world.step([1], opened(world)).position
    exchange(world, keep=False)
    again = exchange(world, keep=False, version=b"\1")
    reply = world.step([2], at)
    assert reply.outputs["prediction"].tolist() == expected([1, 2])[1:]
    assert reply.served is again
    cached = world.replicas[0].sessions[key()].cached
    assert cached is not None
    assert cached.version is again
    swept(world)
    assert not world.replicas[0].models.retiring
    at_rest(world)


def test_a_cached_session_of_a_version_that_is_gone_is_refused_like_any_other() -> None:
    world = World()
    at = world.step([1], opened(world)).position
    models = world.replicas[0].models
    exchange(world, keep=False)
    reply = world.send([2], at)
    world.settle()
    assert reason(reply.result) == "MODEL_CHANGED"
    assert standing(world).position == at
    assert len(models.retiring) == 1
    swept(world)
    assert not models.retiring
    assert world.replicas[0].core.cached_count("m") == 0
    at_rest(world)


def test_the_sessions_of_a_version_that_is_gone_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[str, str]] = []

    class Counting(Meter):
        def evicted(self, model: str, reason: EvictionReason) -> None:
            counted.append((model, reason))

    world = World()
    world.step([1], opened(world))
    world.step([1], opened(world, "t"))
    monkeypatch.setattr(world.replicas[0].core.context, "meter", Counting())
    exchange(world, keep=False)
    swept(world)
    swept(world)
    assert counted == [("m", "retired")] * 2


@pytest.mark.parametrize("stage", ["batches", "writes"])
def test_what_is_under_way_ends_on_its_version(stage: str) -> None:
    world = World()
    at = world.step([1], opened(world)).position
    reply = world.send([2], at)
    until(world, stage)
    exchange(world, keep=False)
    world.replicas[0].core.expire()  # while it is under way
    assert world.replicas[0].core.cached_count("m") == 1
    world.settle()
    assert reply.outputs == expected([1, 2])[1:]
    behind = world.send([3], reply.result.position)
    world.settle()
    assert reason(behind.result) == "MODEL_CHANGED"
    swept(world)
    assert not world.replicas[0].models.retiring
    at_rest(world)


def test_a_session_that_is_opened_in_between_leaves_nothing_behind() -> None:
    world = World()
    reply = Reply()
    world.replicas[0].core.submit(Open(key(), FOREVER, reply, b"o" * 16, None, None, None))
    until(world, "writes")
    exchange(world, keep=False)
    swept(world)  # its commit arrives after the sweep
    assert isinstance(reply.result, OpenReply)
    assert not world.replicas[0].models.retiring
    assert world.replicas[0].sessions == {}
    one = world.replicas[0]
    assert one.version not in one.core.context.caches, "its engine would never be freed"


@pytest.mark.parametrize("seed", range(40))
def test_any_order(seed: int) -> None:
    """Steps of several sessions, exchanges and sweeps in random order.

    Each step is exact on its version, or refused because that version is gone. A session whose version returns
    continues where it was.
    """
    draw = random.Random(seed)
    world = World(slots=3)
    inputs: dict[str, list[int]] = {name: [] for name in "abcde"}
    at = {name: opened(world, name) for name in inputs}
    models = world.replicas[0].models
    under_way: list[tuple[str, int, Reply]] = []
    for _ in range(60):
        act = draw.random()
        if act < 0.12:
            exchange(world, keep=draw.random() < 0.5, version=bytes([draw.randint(1, 3)]))
        elif act < 0.3:
            world.replicas[0].core.expire()
        elif act < 0.6:
            world.settle()
            for name, value, reply in under_way:
                if isinstance(reply.result, StepReply):
                    inputs[name].append(value)
                    assert reply.outputs == expected(inputs[name])[-1:]
                    at[name] = advance(at[name], pack([value]), 4)
                else:
                    assert reason(reply.result) == "MODEL_CHANGED"
                    assert models.find(b"\1" * 32) is None
            under_way.clear()
        else:
            name, value = draw.choice(list(inputs)), draw.randrange(100)
            if all(name != other for other, _, _ in under_way):
                under_way.append((name, value, world.send([value], at[name], session=name)))
            world.replicas[0].collect()
    world.settle()
    swept(world)
    swept(world)
    assert not models.retiring
