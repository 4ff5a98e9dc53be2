"""An exception in any event fails one request, never its neighbours, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cellkeeper_service.core import advance, commit, computing, core, loading

from .acts import at_rest, opened, standing
from .counting_engine import expected
from .world import World, reason


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
        core, "loaded", raises_for(loading.loaded, lambda context, session, result: session.key.session)
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
        patched.setattr(core, "loaded", raises_for(loading.loaded, lambda context, session, result: "bad"))
        one.load(0)
    assert reason(first.result) == "INTERNAL_ERROR"
    world.settle()
    assert behind.outputs == expected([1])
    at_rest(world)


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
    batches = list(one.batches)
    one.batches.clear()
    while batches:
        batch = batches.pop()
        try:
            batch.execute()
        except ValueError:
            batches += one.core.on_failed(batch)
        else:
            one.core.on_computed(batch)
    world.settle()
    assert [replies[0].outputs, replies[2].outputs] == [expected([1]), expected([3])]
    assert reason(replies[1].result) == "INTERNAL_ERROR"
    at_rest(world)
