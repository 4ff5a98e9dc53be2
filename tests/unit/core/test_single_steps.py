"""Single steps that continue cached sessions, the ordinary case: one batch for many sessions, no read, one write.

Whatever happens to one session leaves the others alone.
"""

from __future__ import annotations

import pytest
from cellkeeper_service.core.generation_requests import Open
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.requests import StepReply
from cellkeeper_service.domain.position import Position, advance

from .acts import TICK, at_rest, opened, reset, standing, until
from .counting_engine import FACTOR, POISON, expected
from .counts import counted
from .world import FOREVER, Reply, World, key, pack, reason


def cached(world: World, session: str = "s") -> Position:
    """Opens the session and steps it once with the input 1, so that its next step needs no read."""
    reply = world.step([1], opened(world, session), session=session)
    assert isinstance(reply, StepReply), reply
    return reply.position


def after(position: Position, *inputs: int) -> Position:
    return advance(position, pack(list(inputs)), 4)


def test_steps_of_cached_sessions_are_one_batch_and_one_write_without_a_reading() -> None:
    world = World()
    a, b = cached(world, "a"), cached(world, "b")
    counts, one = counted(world), world.replicas[0]
    replies = world.send_together({"a": (2, a), "b": (3, b), "not there": (4, a)})
    one.collect()
    assert [load.key.session for _, loads in one.loads for load in loads] == ["not there"]
    (batch,) = one.batches
    assert len(batch) == 2
    one.compute(0)
    one.collect()
    (write,) = one.writes
    assert [commit.key.session for commit in write.calls] == ["a", "b"]
    assert [one.result for one in replies[:2]] == [None, None], "answered before their commits"
    world.settle()
    assert replies[0].outputs + replies[1].outputs == expected([1, 2])[1:] + expected([1, 3])[1:]
    assert replies[0].result.position == standing(world, "a").position == after(a, 2)
    assert reason(replies[2].result) == "SESSION_NOT_FOUND"
    assert (counts.steps, counts.outcomes) == (2, [("committed", 2)])
    at_rest(world)


def test_steps_are_one_batch_whatever_they_ask_for() -> None:
    world = World()
    one, replies = world.replicas[0], []
    places = {name: cached(world, name) for name in "abc"}
    for name, wanted in zip("abc", (["prediction"], [], ["prediction"]), strict=True):
        replies.append(world.send([2], places[name], session=name, wanted=wanted))
    one.collect()
    (batch,) = one.batches
    assert len(batch) == 3
    world.settle()
    assert [sorted(reply.result.outputs) for reply in replies] == [["prediction"], [], ["prediction"]]
    at_rest(world)


def test_steps_of_two_versions_are_computed_by_their_own() -> None:
    before, world = World(versions=[b"\1"]), World(versions=[b"\2", b"\1"])
    world.store = before.store
    a = world.step([2], cached(before, "a"), session="a").position
    b, one = cached(world, "b"), world.replicas[0]
    replies = world.send_together({"a": (3, a), "b": (3, b)})
    one.collect()
    sizes = sorted((batch.version.spec.fingerprint[:1], len(batch)) for batch in one.batches)
    assert sizes == [(b"\1", 1), (b"\2", 1)]
    world.settle()
    assert replies[0].outputs + replies[1].outputs == expected([1, 2, 3])[2:] + expected([1, 3], factor=FACTOR + 1)[1:]
    assert standing(world, "a").header.fingerprint == b"\1" * 32
    at_rest(world)


def test_the_log_stays_within_its_limit_and_its_checkpoints_are_counted() -> None:
    world = World(limits=Limits(max_log_steps=2, **TICK), replay=100)
    world.replicas[0].version.due_steps = 100
    position, counts = cached(world), counted(world)
    for value in range(2, 9):
        reply = world.send([value], position)
        world.settle()
        assert reply.outputs == expected(range(1, value + 1))[-1:]
        position = reply.result.position
        record = standing(world)
        assert record.position.step - record.header.checkpoint_step <= 2
    assert counts.checkpoints == 3
    assert reason(world.step([9], position, acked=0)) == "ACK_BEHIND"
    at_rest(world)


def test_a_checkpoint_is_not_written_before_the_replies_behind_it_are_held() -> None:
    world = World()
    start = cached(world)
    world.step([2], start)
    ahead = world.send([3], after(start, 2), acked=1)  # a checkpoint is due, at step 2
    world.settle()
    assert ahead.outputs == expected([1, 2, 3])[2:]
    again = world.send([2], start, acked=1)
    world.settle()
    assert again.outputs == expected([1, 2])[1:]
    assert again.result.replayed
    at_rest(world)


@pytest.mark.parametrize("stage", ["waiting", "in a batch", "in a commit"])
def test_what_comes_behind_a_step_waits_for_it(stage: str) -> None:
    world = World()
    start = cached(world)
    first = world.send([2], start)
    if stage != "waiting":
        until(world, "batches")
    if stage == "in a commit":
        until(world, "writes")
    behind = world.send([3], after(start, 2), acked=1)
    copy = world.send([2], start, acked=0)
    assert reason(reset(world, b"x" * 16)) == "GENERATION_CHANGED"
    assert first.outputs + behind.outputs == expected([1, 2, 3])[1:]
    assert copy.outputs == first.outputs
    assert copy.result.replayed
    at_rest(world)


def test_a_session_is_not_evicted_while_its_step_is_under_way() -> None:
    world = World(slots=1)
    start = cached(world)
    reply = world.send([2], start)
    other = world.send([1], session="t")
    one = world.replicas[0]
    for _ in range(4):
        one.collect()
        if one.loads:
            one.load(0)
    assert one.core.is_cached(key("s"))
    world.settle()
    assert reply.outputs + other.outputs == expected([1, 2])[1:] + expected([1])
    at_rest(world)


def waits_for_a_slot(world: World) -> Reply:
    """Returns the reply to a request for another session while the only slot computes a step."""
    reply = world.send([1], session="t")
    one = world.replicas[0]
    one.collect()
    one.load(0)
    assert one.waiting_for_slot == ["t"]
    return reply


def test_nothing_of_a_late_step_is_sent_and_who_waits_for_its_slot_gets_it() -> None:
    world = World(slots=1)
    start, counts, one = cached(world), counted(world), world.replicas[0]
    late = world.send([2], start, deadline=1.0)
    other = waits_for_a_slot(world)
    one.compute(0)
    world.now = 1.0
    one.collect()
    assert reason(late.result) == "DEADLINE_PASSED"
    assert not one.writes
    assert one.core.has_work, "a slot is free, and nobody was told"
    world.settle()
    assert other.outputs == expected([1])
    assert counts.rejections == ["deadline_passed"]
    assert world.step([2], start).outputs["prediction"].tolist() == expected([1, 2])[1:]
    at_rest(world)


@pytest.mark.parametrize("same_again", [False, True])
def test_an_engine_that_fails_fails_the_step_and_frees_its_slot(same_again: bool) -> None:
    world = World(slots=1)
    start, one = cached(world), world.replicas[0]
    bad = world.send([2], start)
    behind = world.send([2], start) if same_again else None
    other = waits_for_a_slot(world)
    assert one.core.on_failed(one.batches.pop(0)) == []
    assert reason(bad.result) == "INTERNAL_ERROR"
    assert one.core.has_work or (same_again and one.core.wants_load), "a slot is free, and nobody was told"
    world.settle()
    if behind is not None:
        assert behind.outputs == expected([1, 2])[1:]
    assert other.outputs == expected([1])
    at_rest(world)


def test_a_poisoned_step_fails_alone_and_counts_once() -> None:
    world = World()
    a, b = cached(world, "a"), cached(world, "b")
    counts, engine = counted(world), world.replicas[0].engine
    engine.calls.clear()
    bad, good = world.send_together({"a": (POISON, a), "b": (2, b)})
    world.settle()
    assert reason(bad.result) == "NON_FINITE_RESULT"
    assert bad.result.position == standing(world, "a").position == a
    assert good.outputs == expected([1, 2])[1:]
    assert engine.calls == [(1, 2), (1, 1)]  # the second on the record: the cached state might have been stale
    assert (counts.non_finite_rows, counts.rejections) == (1, ["non_finite_result"])
    at_rest(world)


def test_a_poisoned_step_is_computed_again_although_another_caller_leaves() -> None:
    world = World()
    places = {name: cached(world, name) for name in "ab"}
    bad, left = world.send_together({"a": (POISON, places["a"]), "b": (2, places["b"])})
    one = world.replicas[0]
    one.collect()
    assert left.request is not None
    left.request.gone = True  # its step has begun, and is finished
    world.settle()
    assert reason(bad.result) == "NON_FINITE_RESULT"
    assert left.outputs == expected([1, 2])[1:]
    at_rest(world)


def test_a_step_on_a_stale_cached_state_is_decided_on_the_record() -> None:
    world = World(replicas=2)
    start = cached(world)
    elsewhere = world.step([2], start, replica=1)
    same = world.step([2], start, acked=0)
    assert same.replayed
    assert same.position == elsewhere.position
    world.step([3], elsewhere.position, replica=1)
    assert reason(world.step([9], elsewhere.position)) == "STEP_CONFLICT"
    at_rest(world)


def test_every_step_refreshes_the_sessions_ttl() -> None:
    world = World()
    reply = Reply()
    world.ask(Open(key(), FOREVER, reply, b"o" * 16, None, 1000, None), reply)
    position = world.step([1], reply.result.header.position).position
    for value in (2, 3, 4, 5):
        world.now += 0.7
        step = world.send([value], position)
        world.replicas[0].collect()
        assert not world.replicas[0].loads, "a reading would have refreshed it too"
        world.settle()
        position = step.result.position
    assert standing(world).position == position
    world.now += 1.1
    assert reason(world.step([6], position)) == "SESSION_NOT_FOUND"


def test_each_step_of_a_batch_has_its_own_deadline_caller_and_checkpoint() -> None:
    world = World(replay=100)
    world.replicas[0].version.due_steps = 1
    places = {name: cached(world, name) for name in "abcd"}
    counts, one = counted(world), world.replicas[0]
    left, late, good, later = (
        world.send([2], places[name], session=name, deadline=deadline)
        for name, deadline in zip("abcd", (9.0, 1.0, 9.0, 2.0), strict=True)
    )
    assert left.request is not None
    left.request.gone = True
    world.now = 1.0
    one.collect()
    (batch,) = one.batches
    assert len(batch) == 2
    assert (reason(left.result), reason(late.result)) == ("CALLER_GONE", "DEADLINE_PASSED")
    one.compute(0)
    world.now = 2.0
    one.collect()
    assert [commit.key.session for commit in one.writes[0].calls] == ["c"]
    assert reason(later.result) == "DEADLINE_PASSED"
    world.settle()
    assert good.outputs == expected([1, 2])[1:]
    assert standing(world, "c").header.checkpoint_step == 1, "the checkpoint that was due was another's"
    assert counts.checkpoints == 1
    assert [standing(world, name).position for name in "abd"] == [places[name] for name in "abd"]
    at_rest(world)


def test_each_step_of_a_batch_has_its_own_times() -> None:
    world = World()
    places = {name: cached(world, name) for name in "ab"}
    counts, one = counted(world), world.replicas[0]
    first = world.send([2], places["a"], session="a")
    world.now = 3.0
    second = world.send([2], places["b"], session="b")
    world.now = 4.0
    one.collect()
    world.now = 6.0
    world.settle()
    assert [reply.result.queued_seconds for reply in (first, second)] == [4.0, 1.0]
    assert [reply.result.computed_seconds for reply in (first, second)] == [2.0, 2.0]
    assert [(times.queue, times.total) for times in counts.times] == [(4.0, 6.0), (1.0, 3.0)]
