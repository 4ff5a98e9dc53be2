"""CarryOver: each policy, retries, and concurrent requests for the same session."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cellkeeper_service.core.generation_requests import CarryOver, Moved, Policy
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.domain.position import Position, advance, first_position

from .acts import TICK, at_rest, opened, standing, until
from .counting_engine import FACTOR, POISON, expected
from .world import FOREVER, Reply, World, key, pack, reason

OLD, NEW = b"\1", b"\2"
NEW_FACTOR = FACTOR + 1


def carry(
    reply: Reply,
    at: Position,
    policy: Policy,
    window: list[int] | None = None,
    origin: bytes = b"c" * 16,
    position: Position | None = None,
) -> CarryOver:
    data = pack(window or [])
    what = policy, data, len(window or []), b"", position
    return CarryOver(key(), FOREVER, reply, at.generation, origin, NEW * 32, *what)


def carried(world: World, at: Position, policy: Policy, window: list[int] | None = None, **more: Any) -> Any:
    reply, replica = Reply(), more.pop("replica", 0)
    return world.ask(carry(reply, at, policy, window, **more), reply, replica)


def grown(replay: int = 100, versions: tuple[bytes, ...] = (NEW, OLD)) -> tuple[World, Position]:
    """Returns a world and a session's position after [1, 2, 3] under the old version. Replica 0 serves `versions`."""
    world = World(versions=(OLD,), replay=replay)
    at = world.step([1, 2, 3], opened(world), acked=0).position
    world.replicas = []
    world.start(versions)
    return world, at


def goes_on(world: World, at: Position, state: int) -> None:
    """Checks that the session is at `at` under the new version with this state, and continues, cached and cold."""
    record = standing(world)
    assert record.position == at
    assert record.header.fingerprint == NEW * 32
    assert (record.header.checkpoint_step, record.log, int.from_bytes(record.checkpoint, "little")) == (
        at.step,
        b"",
        state,
    )
    outputs = world.step([7], at, acked=0).outputs["prediction"].tolist()
    assert outputs == expected([7], state, NEW_FACTOR)
    world.replicas = world.replicas[:1]
    cold = world.start((NEW,))
    again = world.step([8], None, replica=cold)
    assert again.outputs["prediction"].tolist() == expected([7, 8], state, NEW_FACTOR)[1:]
    at_rest(world)


def test_keep_takes_the_state_and_the_step() -> None:
    world, at = grown()
    moved = carried(world, at, Policy.KEEP)
    assert moved.position.generation != at.generation
    assert moved.position == first_position(moved.position.generation, 3)
    goes_on(world, moved.position, expected([1, 2, 3])[-1])


def test_keep_of_a_cached_session() -> None:
    world = World(versions=(OLD, NEW))
    at = world.step([1, 2, 3], opened(world)).position
    moved = carried(world, at, Policy.KEEP)
    goes_on(world, moved.position, expected([1, 2, 3])[-1])


def test_keep_refuses_a_state_from_before_a_lost_step() -> None:
    """A caller who knows of a fourth step, which the store has lost, would go on without it, and not be told."""
    world, at = grown()
    lost = advance(at, pack([4]), 4)
    result = carried(world, at, Policy.KEEP, position=lost)
    assert (reason(result), result.field, result.position) == ("STEP_GAP", "position.step", at)
    others = advance(first_position(at.generation), pack([1, 2, 9]), 4)
    result = carried(world, at, Policy.KEEP, position=others)
    assert (reason(result), result.field, result.position) == ("HISTORY_CHANGED", "position.head", at)
    assert standing(world).position == at
    at_rest(world)


@pytest.mark.parametrize("step", [0, 1, 3])
@pytest.mark.parametrize("replay", [1, 100])
def test_keep_takes_steps_that_the_caller_does_not_know_of(step: int, replay: int) -> None:
    """Also if they are in the checkpoint, where nobody can tell whether the caller has the same ones."""
    world, at = grown(replay)
    known = advance(first_position(at.generation), pack([1, 2, 3][:step]), 4)
    moved = carried(world, at, Policy.KEEP, position=known)
    assert moved.position == first_position(moved.position.generation, 3)
    goes_on(world, moved.position, expected([1, 2, 3])[-1])


def test_rerun_computes_the_window_with_the_new_version() -> None:
    world, at = grown(versions=(NEW,))
    window = list(range(11))
    moved = carried(world, at, Policy.RERUN, window)
    assert moved.position == advance(first_position(moved.position.generation), pack(window), 4)
    goes_on(world, moved.position, expected(window, 0, NEW_FACTOR)[-1])


def test_reset_begins_anew() -> None:
    world, at = grown(versions=(NEW,))
    moved = carried(world, at, Policy.RESET)
    assert moved.position == first_position(moved.position.generation)
    goes_on(world, moved.position, 0)


def test_keep_without_the_old_version_needs_an_empty_log() -> None:
    world, at = grown(versions=(NEW,))
    before = standing(world)
    result = carried(world, at, Policy.KEEP)
    assert (reason(result), result.field, result.position) == ("MODEL_CHANGED", "policy", at)
    assert "the last 3 time steps" in result.message
    assert standing(world) == before
    at_rest(world)

    world = World(versions=(OLD,))
    start = opened(world)
    world.replicas = []
    world.start((NEW,))
    moved = carried(world, start, Policy.KEEP)
    goes_on(world, moved.position, 0)


@pytest.mark.parametrize("steps", [[], [1, 2, 3]])
@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [("gru", "rnn_tanh", False), ("rnn_tanh", "rnn_relu", False), ("gru", "gru", True), ("gru", "", True)],
)
def test_keep_between_kinds_of_cells(old: str, new: str, allowed: bool, steps: list[int]) -> None:
    """Their states have the same sizes. A graph does not say what its states belong to."""
    world = World(versions=(OLD, NEW))
    for version, cell in zip(world.replicas[0].models, (old, new), strict=True):
        version.spec = replace(version.spec, cell=cell)
    at = opened(world)
    if steps:
        at = world.step(steps, at).position
    before = standing(world)
    result = carried(world, at, Policy.KEEP)
    if allowed:
        assert isinstance(result, Moved)
    else:
        assert (reason(result), result.field) == ("MODEL_CHANGED", "policy")
        assert f"cells of the kind {old}, the other {new}" in result.message
        assert standing(world) == before
        assert isinstance(carried(world, at, Policy.RERUN, [5]), Moved)


@pytest.mark.parametrize("policy", Policy)
def test_a_session_of_the_new_version_stays_as_it_is(policy: Policy) -> None:
    world = World(versions=(NEW, OLD))
    at = world.step([1], opened(world)).position
    before = standing(world)
    assert carried(world, at, policy, [5, 6]) == Moved(at)
    assert standing(world) == before
    assert reason(carried(world, first_position(b"x" * 16), policy, [5])) == "GENERATION_CHANGED"
    at_rest(world)


@pytest.mark.parametrize("policy", Policy)
def test_a_retry_finds_its_own_work(policy: Policy) -> None:
    world, at = grown()
    moved = carried(world, at, policy, [5, 6])
    assert carried(world, at, policy, [5, 6]) == moved
    after = world.step([1], moved.position).position
    assert carried(world, at, policy, [5, 6]) == Moved(after)
    assert reason(carried(world, at, policy, [5, 6], origin=b"x" * 16)) == "GENERATION_CHANGED"
    assert reason(world.step([4], at)) == "GENERATION_CHANGED"
    at_rest(world)


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("lands", [False, True])
def test_an_unknown_outcome_is_settled_by_the_second_try(policy: Policy, lands: bool) -> None:
    world, at = grown()
    reply = Reply()
    one = world.replicas[0]
    one.core.submit(carry(reply, at, policy, [5, 6]))
    until(world, "writes")
    late = one.lose(0)
    if lands:
        one.reach_store(late)
    world.settle()
    if not lands:
        one.reach_store(late)  # the first write reaches the store after all: its compare-and-set finds another record
    assert reply.result == Moved(standing(world).position)
    assert standing(world).header.fingerprint == NEW * 32
    assert world.step([9], reply.result.position).position == standing(world).position
    at_rest(world)


@pytest.mark.parametrize("policy", Policy)
def test_steps_around_it(policy: Policy) -> None:
    """Earlier steps are carried over; later ones belong to a generation that has ended."""
    world, at = grown()
    before, reply = world.send([4], at), Reply()
    world.replicas[0].core.submit(carry(reply, at, policy, [5, 6]))
    behind = world.send([5], advance(at, pack([4]), 4))
    world.settle()
    assert before.outputs == expected([1, 2, 3, 4])[3:]
    assert reason(behind.result) == "GENERATION_CHANGED"
    state = {
        Policy.KEEP: expected([1, 2, 3, 4])[-1],
        Policy.RERUN: expected([5, 6], 0, NEW_FACTOR)[-1],
        Policy.RESET: 0,
    }[policy]
    goes_on(world, reply.result.position, state)


@pytest.mark.parametrize("policy", Policy)
def test_a_step_elsewhere_while_it_is_computed_is_not_lost(policy: Policy) -> None:
    """The commit finds another record and is decided again, so the carried state includes that step."""
    world, at = grown()
    world.start((OLD,))
    reply = Reply()
    world.replicas[0].core.submit(carry(reply, at, policy, [5, 6]))
    until(world, "writes")
    elsewhere = world.send([4], at, replica=1)
    while world.replicas[1].work():
        pass
    assert elsewhere.outputs == expected([1, 2, 3, 4])[3:]
    world.settle()
    assert isinstance(reply.result, Moved)
    assert reason(world.step([5], None, replica=1)) == "MODEL_CHANGED"
    at_rest(world)
    if policy is Policy.KEEP:
        goes_on(world, reply.result.position, expected([1, 2, 3, 4])[-1])


def test_a_window_that_is_not_finite_leaves_the_session_alone() -> None:
    world, at = grown()
    before = standing(world)
    result = carried(world, at, Policy.RERUN, [1, POISON, 2])
    assert (reason(result), result.field) == ("NON_FINITE_RESULT", "inputs")
    assert standing(world) == before
    assert world.step([4], at).outputs["prediction"].tolist() == expected([1, 2, 3, 4])[3:]
    at_rest(world)


def test_a_deadline_that_passes_while_a_window_is_computed() -> None:
    world, at = grown()
    reply = Reply()
    request = carry(reply, at, Policy.RERUN, [1] * 9)
    request.deadline = 5.0
    world.replicas[0].core.submit(request)
    until(world, "batches")
    world.now = 6.0
    world.settle()
    assert reason(reply.result) == "DEADLINE_PASSED"
    assert standing(world).position == at
    at_rest(world)


def test_more_windows_than_slots() -> None:
    """Each waits for a slot of the new version. None is refused, and all are computed."""
    world = World(versions=(OLD, NEW), slots=2, limits=Limits(**TICK))
    names = "abcdef"
    replies = {}
    for name in names:
        at = world.step([1], opened(world, name), session=name).position
        replies[name] = (at, Reply())
    for name, (at, reply) in replies.items():
        request = CarryOver(
            key(name), FOREVER, reply, at.generation, b"c" * 16, NEW * 32, Policy.RERUN, pack([3, 4, 5]), 3
        )
        world.replicas[0].core.submit(request)
    world.settle()
    for name in names:
        _, reply = replies[name]
        assert isinstance(reply.result, Moved)
        got = world.step([6], reply.result.position, session=name).outputs["prediction"].tolist()
        assert got == expected([3, 4, 5, 6], 0, NEW_FACTOR)[3:]
    at_rest(world)


def test_the_ttl_stays() -> None:
    world = World(versions=(OLD, NEW), limits=Limits(default_ttl_ms=5000, **TICK))
    at = opened(world)
    carried(world, at, Policy.RESET)
    assert standing(world).header.ttl_ms == 5000


def test_no_session() -> None:
    world = World(versions=(OLD, NEW))
    for policy in Policy:
        assert reason(carried(world, first_position(b"g" * 16), policy, [1])) == "SESSION_NOT_FOUND"
    at_rest(world)


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("computing", [False, True])
def test_a_target_that_retires_meanwhile_is_refused_and_the_session_stays(policy: Policy, computing: bool) -> None:
    world, at = grown(versions=(OLD, NEW))
    reply, one = Reply(), world.replicas[0]
    window = [5] if policy is Policy.RERUN else None
    one.core.submit(carry(reply, at, policy, window))
    if computing and policy is not Policy.RESET:
        until(world, "batches")
    one.models.exchange([one.models.default])
    world.settle()
    assert reason(reply.result) == "INVALID_FIELD"
    assert reply.result.field == "fingerprint"
    assert standing(world).position == at
    assert world.step([4], at).position.step == 4
    at_rest(world)
