"""Rollouts: what they compute, that they leave no trace, and that they delay no other session."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cellkeeper_service.domain.position import advance

from .acts import at_rest, opened, standing, until
from .counting_engine import POISON, expected, rolled
from .world import World, pack, reason


@pytest.mark.parametrize(("given", "steps"), [(1, 1), (1, 9), (3, 4), (11, 30)])
def test_a_rollout_is_what_feeding_back_by_hand_gives(given: int, steps: int) -> None:
    world = World(replay=100)
    at = world.step([5, 6], opened(world), acked=0).position
    before = standing(world)
    coming = list(range(given))
    result = world.step(coming, at, peek=True, rollout_steps=steps, wants_state=True)
    consumed = rolled([5, 6, *coming], steps)
    assert result.outputs["prediction"].tolist() == expected(consumed)[2:]
    assert result.position == advance(at, pack(consumed[2:]), 4)
    assert int.from_bytes(result.state, "little") == expected(consumed)[-1]
    assert standing(world) == before
    assert world.step([7], at).outputs["prediction"].tolist() == expected([5, 6, 7])[2:]
    at_rest(world)


def test_a_rollout_of_a_cold_session_and_without_position() -> None:
    world = World(replicas=2, replay=100)
    at = world.step([1, 2, 3], opened(world), acked=0).position
    result = world.step([4], None, peek=True, rollout_steps=3, replica=1)
    assert result.outputs["prediction"].tolist() == expected(rolled([1, 2, 3, 4], 3))[3:]
    assert standing(world).position == at


def test_rollouts_of_many_sessions_share_their_calls() -> None:
    world = World(slots=8)
    for name in "abcdef":
        opened(world, name)
    engine = world.replicas[0].engine
    engine.calls.clear()
    replies = [world.send([n], None, session=name, peek=True, rollout_steps=5) for n, name in enumerate("abcdef")]
    world.settle()
    for number, reply in enumerate(replies):
        assert reply.outputs == expected(rolled([number], 5))
    assert engine.calls == [(1, 6)] * 6


def test_a_rollout_does_not_hold_up_another_session() -> None:
    """A step that arrives during a long rollout is in the next tick."""
    world = World()
    opened(world), opened(world, "t")
    long = world.send([1] * 9, None, peek=True, rollout_steps=200)
    one = world.replicas[0]
    until(world, "batches")
    for _ in range(20):
        one.compute(0)
        one.collect()
    assert long.result is None
    other = world.send([3], None, session="t")
    while one.loads or not one.writes:
        one.collect()
        while one.loads:
            one.load(0)
        while one.batches:
            one.compute(0)
    one.deliver(0)
    assert other.outputs == expected([3])
    assert long.result is None
    world.settle()
    assert long.outputs == expected(rolled([1] * 9, 200))
    at_rest(world)


def test_a_rollout_behind_the_record_is_refused_and_a_plain_peek_is_not() -> None:
    world = World(replay=100)
    start = opened(world)
    at = world.step([1, 2], start, acked=0).position
    result = world.step([1], start, peek=True, rollout_steps=2)
    assert (reason(result), result.field, result.position) == ("STEP_CONFLICT", "rollout_steps", at)
    assert world.step([1], start, peek=True).replayed
    assert reason(world.step([1], advance(at, pack([9]), 4), peek=True, rollout_steps=2)) == "STEP_GAP"
    assert reason(world.step([1], None, session="no", peek=True, rollout_steps=2)) == "SESSION_NOT_FOUND"
    at_rest(world)


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [([POISON], "inputs", "the output or the state"), ([665], "rollout_steps", "at rolled time step 0")],
)
def test_a_rollout_that_is_not_finite_fails_and_touches_nothing(given: list[int], field: str, words: str) -> None:
    world = World()
    at = opened(world)
    result = world.step(given, at, peek=True, rollout_steps=3)
    assert (reason(result), result.field, result.position) == ("NON_FINITE_RESULT", field, at)
    assert words in result.message
    assert world.step([1], at).outputs["prediction"].tolist() == expected([1])
    at_rest(world)


def test_nobody_waits_for_a_rollout_any_more() -> None:
    """The rollout is dropped between two time steps, not computed to its end."""
    world = World()
    at = opened(world)
    late, gone = (
        world.send([n], at, peek=True, rollout_steps=50, deadline=deadline) for n, deadline in ((1, 5.0), (2, 9.0))
    )
    one = world.replicas[0]
    until(world, "batches")
    one.compute(0)
    one.collect()
    world.now = 6.0
    one.compute(0)
    until(world, "batches")
    assert reason(late.result) == "DEADLINE_PASSED"
    one.compute(0)
    assert gone.request is not None
    gone.request.gone = True
    world.settle()
    assert reason(gone.result) == "CALLER_GONE"
    computed = sum(steps for steps, _ in one.engine.calls)
    assert computed < 10
    assert world.step([1], at).outputs["prediction"].tolist() == expected([1])
    at_rest(world)


def test_a_model_that_does_not_say_how_refuses() -> None:
    world = World()
    engine = world.replicas[0].engine
    engine.spec = world.replicas[0].version.spec = replace(engine.spec, feedback=None)
    opened(world)
    result = world.step([1], None, peek=True, rollout_steps=1)
    assert (reason(result), result.field) == ("INVALID_FIELD", "rollout_steps")
    assert '"feedback"' in result.message
    at_rest(world)
