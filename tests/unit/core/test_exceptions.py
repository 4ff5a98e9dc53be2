"""An exception in any event fails one request, never its neighbours, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cellkeeper_service.core import advance, commit, computing, core
from cellkeeper_service.core.limits import Limits

from .acts import at_rest, opened, standing
from .counting_engine import expected
from .world import Replica, World, reason


def raises_for(real: Callable[..., Any], of: Callable[..., str]) -> Callable[..., Any]:
    """Wraps `real` so that it raises for the session `bad`. of: returns the session's id, given the arguments."""

    def sometimes(*arguments: Any) -> Any:
        if of(*arguments) == "bad":
            raise ZeroDivisionError
        return real(*arguments)

    return sometimes


PLACES: dict[str, tuple[Any, str, Callable[..., str]]] = {
    "a first request goes on": (advance, "_go_on", lambda context, session, request: session.key.session),
    "a request is decided": (advance, "_decide", lambda context, session, request, reading: session.key.session),
    "a chunk is begun": (advance, "start_chunk", lambda cached, step: step.key.session),
    "a slice was computed": (core, "take_slice", lambda context, batch, row, cached, work: cached.session.key.session),
    "a chunk was computed": (core, "finish_chunk", lambda context, cached, step: step.key.session),
    "a commit is built": (commit, "build_commit", lambda session, requests, now_ms: session.key.session),
    "a commit was done": (core, "committed", lambda context, commit: commit.session.key.session),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("slots", [1, 4])
def test_only_the_session_at_fault_fails(
    place: str, slots: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(slots=slots)
    good, bad = opened(world, "good"), opened(world, "bad")
    module, name, of = PLACES[place]
    # a chunk that continues its session needs no decision
    peek = place in ("a first request goes on", "a request is decided")
    inputs = [1] * 6 if place == "a slice was computed" else [1]  # a whole chunk is not a slice
    with monkeypatch.context() as patched:
        patched.setattr(module, name, raises_for(getattr(module, name), of))
        replies = [world.send(inputs, place, session=name, peek=peek) for name, place in (("good", good), ("bad", bad))]
        world.settle()
    assert replies[0].outputs == expected(inputs)
    assert reason(replies[1].result) == "INTERNAL_ERROR"
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]
    again = world.send([1], bad, session="bad")  # the session continues from its record, whatever its position
    world.settle()
    assert again.outputs == expected([1])
    assert standing(world, "bad").position == again.result.position
    at_rest(world)


def test_late_work_that_cannot_be_ended_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    good, bad = opened(world, "good"), opened(world, "bad")
    for name, place in (("good", good), ("bad", bad)):
        world.step([1], place, session=name)  # from now on its state is cached
    at = {name: standing(world, name).position for name in ("good", "bad")}
    ends = raises_for(computing.end_dead, lambda context, cached, work: cached.session.key.session)
    monkeypatch.setattr(core, "end_dead", ends)
    replies = [
        world.send([2], at["good"], session="good"),
        world.send([2], at["bad"], session="bad", deadline=world.now + 1),
    ]
    world.now += 2
    world.settle()
    assert replies[0].outputs == expected([1, 2])[1:]
    assert reason(replies[1].result) == "INTERNAL_ERROR"
    at_rest(world)


def test_a_reading_that_cannot_be_taken_in_fails_the_requests_it_was_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    opened(world, "good")
    opened(world, "bad")
    monkeypatch.setattr(
        core, "loaded", raises_for(advance.loaded, lambda context, session, result: session.key.session)
    )
    # peeks are decided on the record
    replies = {name: world.send([1], session=name, peek=True) for name in ("good", "bad")}
    world.settle()
    assert replies["good"].outputs == expected([1])
    assert reason(replies["bad"].result) == "INTERNAL_ERROR"
    at_rest(world)


def test_who_came_after_a_reading_that_cannot_be_taken_in_gets_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    opened(world)
    one = world.replicas[0]
    first = world.send([1], peek=True)
    one.collect()
    behind = world.send([1], peek=True)
    with monkeypatch.context() as patched:
        patched.setattr(core, "loaded", raises_for(advance.loaded, lambda context, session, result: "bad"))
        one.load(0)
    assert reason(first.result) == "INTERNAL_ERROR"
    world.settle()
    assert behind.outputs == expected([1])
    at_rest(world)


def compute_all(replica: Replica) -> None:
    """Executes the replica's batches as the loop does: halves take the place of one that fails."""
    while replica.batches:
        batch = replica.batches.pop()
        try:
            batch.execute()
        except (ValueError, MemoryError):
            replica.batches += replica.core.on_failed(batch)
        else:
            replica.core.on_computed(batch)


def test_an_engine_that_refuses_one_row_computes_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    places = {name: opened(world, name) for name in "abc"}
    engine = world.replicas[0].engine
    run = engine.run

    def picky(inputs: Any, *more: Any) -> Any:
        if (inputs == 13).any():
            raise ValueError("13")
        return run(inputs, *more)

    monkeypatch.setattr(engine, "run", picky)
    replies = [world.send([value], places[name], session=name) for name, value in zip("abc", (1, 13, 3), strict=True)]
    one = world.replicas[0]
    one.collect()
    compute_all(one)
    world.settle()
    assert [replies[0].outputs, replies[2].outputs] == [expected([1]), expected([3])]
    assert reason(replies[1].result) == "INTERNAL_ERROR"
    at_rest(world)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_what_is_computed_is_not_computed_again(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no memory for more than `most` states at a time, which shows once the engine has advanced them."""
    world = World(limits=Limits(max_slice_steps=4, max_long_steps=64))
    places = {name: opened(world, name) for name in "abc"}
    inputs = {name: [number] * 6 for number, name in enumerate("abc")}  # slices of 4 and 2 steps
    one = world.replicas[0]
    read_states = one.engine.read_states

    def scarce(rows: Any) -> Any:
        if len(rows) > most:
            raise MemoryError
        return read_states(rows)

    monkeypatch.setattr(one.engine, "read_states", scarce)
    replies = {name: world.send(inputs[name], places[name], session=name, wants_state=True) for name in "abc"}
    for _ in range(4):
        one.collect()
        while one.loads:
            one.load(0)
        compute_all(one)
    world.settle()
    for name, reply in replies.items():
        if most == 0:
            assert reason(reply.result) == "INTERNAL_ERROR"
            assert standing(world, name).position == places[name]
        else:
            assert reply.outputs == expected(inputs[name])
            assert reply.result.state == expected(inputs[name])[-1].to_bytes(8, "little")
    at_rest(world)
