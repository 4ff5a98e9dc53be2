"""The short way of single steps, and where it meets the long one: of a frame's items, and of steps that come one by
one."""

from __future__ import annotations

from typing import Any

import pytest
from cellkeeper_service.core.batch import Batch
from cellkeeper_service.core.session import InflightCommit
from cellkeeper_service.domain.meter import NullMeter, StepTimes
from cellkeeper_service.domain.position import Position, advance
from cellkeeper_service.sessions.cohort import CohortCall, CohortFlight
from cellkeeper_service.sessions.limits import Limits
from cellkeeper_service.sessions.requests import Open, Step, StepReply

from .acts import TICK, at_rest, opened, reset, standing, until
from .columns import submit_alone
from .counting_engine import FACTOR, POISON, expected
from .world import FOREVER, Reply, World, key, pack, reason


@pytest.fixture(autouse=True, params=["frame", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "one_by_one", request.param == "one by one")


def warmed(world: World, session: str = "s") -> Position:
    """Opens the session and steps it once, with the input 1: its next step can go the short way."""
    reply = world.step([1], opened(world, session), session=session)
    assert isinstance(reply, StepReply), reply
    return reply.position


def after(position: Position, *inputs: int) -> Position:
    return advance(position, pack(list(inputs)), 4)


class Counts(NullMeter):
    def __init__(self) -> None:
        self.refused: list[str] = []
        self.outcomes: list[tuple[str, int]] = []
        self.times: list[StepTimes] = []
        self.applied = self.non_finite_rows = self.checkpoints = 0

    def rejected(self, reason: str) -> None:
        self.refused.append(reason)

    def committed(self, outcome: str, count: int) -> None:
        self.outcomes.append((outcome, count))

    def steps_done(self, model: str, count: int, times: object) -> None:
        self.applied += count

    def step_done(self, model: str, steps: int, times: StepTimes, replayed: bool) -> None:
        self.applied += steps
        self.times.append(times)

    def non_finite(self, model: str) -> None:
        self.non_finite_rows += 1

    def checkpointed(self, model: str) -> None:
        self.checkpoints += 1


def size(call: Any) -> int:
    """How many sessions it is for."""
    return len(call) if isinstance(call, Batch) else int(call.batch)


def counted(world: World) -> Counts:
    counts = Counts()
    world.replicas[0].count_with(counts)
    return counts


def test_the_hot_items_of_a_frame_are_one_call_without_a_reading() -> None:
    world = World()
    a, b = warmed(world, "a"), warmed(world, "b")
    counts, one = counted(world), world.replicas[0]
    _, replies = world.send_frame({"a": (2, a), "b": (3, b), "cold": (4, a)})
    one.collect()
    assert len(one.loads[0][1]) == 1
    (call,) = one.calls
    assert isinstance(call, (CohortCall, Batch))
    assert size(call) == 2
    one.compute(0)
    one.collect()
    assert [type(flight) for flight in one.writes[0].flights] == 2 * [InflightCommit if world.core else CohortFlight]
    assert [one.result for one in replies[:2]] == [None, None], "answered before their commits"
    world.settle()
    assert replies[0].outputs + replies[1].outputs == expected([1, 2])[1:] + expected([1, 3])[1:]
    assert replies[0].result.position == standing(world, "a").position == after(a, 2)
    assert reason(replies[2].result) == "SESSION_NOT_FOUND"
    assert (counts.applied, counts.outcomes) == (2, [("committed", 2)])
    at_rest(world)


def test_the_log_stays_within_its_limit_and_its_checkpoints_are_counted() -> None:
    world = World(limits=Limits(max_log_steps=2, tick=TICK), replay=100)
    world.replicas[0].served.due_steps = 100
    position, counts = warmed(world), counted(world)
    for value in range(2, 9):
        reply = world.send([value], position, short=True)
        world.settle()
        assert reply.outputs == expected(range(1, value + 1))[-1:]
        position = reply.result.position
        record = standing(world)
        assert record.position.step - record.header.checkpoint_step <= 2
    assert counts.checkpoints == 3
    behind = world.send([9], position, acked=0, short=True)
    world.settle()
    assert reason(behind.result) == "ACK_BEHIND"
    at_rest(world)


def test_a_checkpoint_is_not_written_before_the_replies_behind_it_are_held() -> None:
    world = World()
    start = warmed(world)
    world.send([2], start, short=True)
    world.settle()
    ahead = world.send([3], after(start, 2), acked=1, short=True)  # a checkpoint is due, at step 2
    world.settle()
    assert ahead.outputs == expected([1, 2, 3])[2:]
    again = world.send([2], start, acked=1, short=True)
    world.settle()
    assert again.outputs == expected([1, 2])[1:]
    assert again.result.replayed
    at_rest(world)


@pytest.mark.parametrize("stage", ["waiting", "computed", "sent"])
def test_what_comes_behind_an_item_waits_for_it(stage: str) -> None:
    world = World()
    start = warmed(world)
    first = world.send([2], start, short=True)
    if stage != "waiting":
        until(world, "calls")
    if stage == "sent":
        until(world, "writes")
    behind = world.send([3], after(start, 2), acked=1, short=True)
    copy = world.send([2], start, acked=0, short=True)
    assert reason(reset(world, b"x" * 16)) == "GENERATION_CHANGED"
    assert first.outputs + behind.outputs == expected([1, 2, 3])[1:]
    assert copy.outputs == first.outputs
    assert copy.result.replayed
    at_rest(world)


def test_a_session_is_not_evicted_while_its_item_is_on_the_way() -> None:
    world = World(slots=1)
    start = warmed(world)
    reply = world.send([2], start, short=True)
    other = world.send([1], session="t")
    one = world.replicas[0]
    for _ in range(4):
        one.collect()
        if one.loads:
            one.load(0)
    assert one.sessions.is_hot(key("s"))
    world.settle()
    assert reply.outputs + other.outputs == expected([1, 2])[1:] + expected([1])
    at_rest(world)


def waits_for_a_slot(world: World) -> Reply:
    """A request for another session, while the only slot's item is computed."""
    reply = world.send([1], session="t")
    one = world.replicas[0]
    one.collect()
    one.load(0)
    assert one.waiting_for_slot
    return reply


def test_nothing_of_a_late_frame_is_sent_and_who_waits_for_its_slot_gets_it() -> None:
    world = World(slots=1)
    start, counts, one = warmed(world), counted(world), world.replicas[0]
    late = world.send([2], start, deadline=1.0, short=True)
    other = waits_for_a_slot(world)
    one.compute(0)
    world.now = 1.0
    one.collect()
    assert reason(late.result) == "DEADLINE_PASSED"
    assert not one.writes
    assert one.sessions.wants_call, "a slot is free, and nobody was told"
    world.settle()
    assert other.outputs == expected([1])
    assert counts.refused == ["deadline_passed"]
    assert world.step([2], start).outputs["prediction"].tolist() == expected([1, 2])[1:]
    at_rest(world)


def test_a_failing_engine_fails_the_items_and_frees_their_slots() -> None:
    world = World(slots=1)
    start, one = warmed(world), world.replicas[0]
    bad = world.send([2], start, short=True)
    behind = world.send([2], start)
    other = waits_for_a_slot(world)
    one.sessions.failed(one.calls.pop(0))
    assert reason(bad.result) == "INTERNAL_ERROR"
    assert one.sessions.wants_call or one.sessions.wants_load
    world.settle()
    assert behind.outputs + other.outputs == expected([1, 2])[1:] + expected([1])
    at_rest(world)


def test_a_failing_engine_lets_who_waits_for_a_slot_have_it() -> None:
    world = World(slots=1)
    bad, one = world.send([2], warmed(world), short=True), world.replicas[0]
    other = waits_for_a_slot(world)
    one.sessions.failed(one.calls.pop(0))
    assert reason(bad.result) == "INTERNAL_ERROR"
    assert one.sessions.wants_call, "a slot is free, and nobody was told"
    world.settle()
    assert other.outputs == expected([1])


def test_a_frame_whose_caller_has_gone_is_not_begun() -> None:
    world = World()
    a, b = warmed(world, "a"), warmed(world, "b")
    frame, replies = world.send_frame({"a": (2, a), "b": (3, b)})
    frame.abandon()
    world.settle()
    assert [reason(reply.result) for reply in replies] == ["CALLER_GONE"] * 2
    assert standing(world, "a").position == a
    at_rest(world)


def test_a_poisoned_item_fails_alone_and_counts_once() -> None:
    world = World()
    a, b = warmed(world, "a"), warmed(world, "b")
    counts, engine = counted(world), world.replicas[0].served.engine
    engine.calls.clear()
    _, (bad, good) = world.send_frame({"a": (POISON, a), "b": (2, b)})
    world.settle()
    assert reason(bad.result) == "NON_FINITE_RESULT"
    assert bad.result.position == standing(world, "a").position == a
    assert good.outputs == expected([1, 2])[1:]
    assert engine.calls == [(1, 2), (1, 1)]
    assert (counts.non_finite_rows, counts.refused) == (1, ["non_finite_result"])
    at_rest(world)


def test_a_poisoned_step_counts_once_the_long_way_too() -> None:
    world = World()
    start, counts = warmed(world), counted(world)
    assert reason(world.step([POISON], start)) == "NON_FINITE_RESULT"
    assert counts.non_finite_rows == 1


def test_an_item_on_a_stale_copy_is_decided_on_the_record() -> None:
    world = World(replicas=2)
    start = warmed(world)
    elsewhere = world.step([2], start, replica=1)
    same, other = world.send([2], start, acked=0, short=True), None
    world.settle()
    assert same.result.replayed
    assert same.result.position == elsewhere.position
    world.step([3], elsewhere.position, replica=1)
    other = world.send([9], elsewhere.position, short=True)
    world.settle()
    assert reason(other.result) == "STEP_CONFLICT"
    at_rest(world)


@pytest.mark.parametrize("landed", [False, True])
def test_an_item_without_an_answer_is_decided_on_the_record(landed: bool) -> None:
    world = World()
    start, counts = warmed(world), counted(world)
    reply = world.send([2], start, short=True)
    until(world, "writes")
    one = world.replicas[0]
    if landed:
        one.reach_store(one.writes[0])
    write = one.lose(0)
    world.settle()
    assert reply.outputs == expected([1, 2])[1:]
    assert reply.result.replayed is landed
    if not landed:
        one.reach_store(write)  # late
        assert standing(world).position == reply.result.position
    assert counts.outcomes[0] == ("unknown", 1)
    at_rest(world)


def test_a_refused_item_leaves_its_session_where_it_is() -> None:
    world = World()
    start = warmed(world)
    reply = world.send([2], start, short=True)
    until(world, "writes")
    world.replicas[0].refuse(0)
    assert reason(reply.result) == "STORE_UNAVAILABLE"
    again = world.send([3], start, short=True)
    world.settle()
    assert again.outputs == expected([1, 3])[1:]
    at_rest(world)


def test_items_of_two_versions_are_computed_by_their_own() -> None:
    before, world = World(versions=[b"\1"]), World(versions=[b"\2", b"\1"])
    world.store = before.store
    a = world.step([2], warmed(before, "a"), session="a").position
    b, one = warmed(world, "b"), world.replicas[0]
    _, replies = world.send_frame({"a": (3, a), "b": (3, b)})
    one.collect()
    versions = [call.version if world.core else call.served for call in one.calls]
    sizes = sorted(
        (version.spec.fingerprint[:1], size(call)) for version, call in zip(versions, one.calls, strict=True)
    )
    assert sizes == [(b"\1", 1), (b"\2", 1)]
    assert all(isinstance(call, (CohortCall, Batch)) for call in one.calls)
    world.settle()
    assert replies[0].outputs + replies[1].outputs == expected([1, 2, 3])[2:] + expected([1, 3], factor=FACTOR + 1)[1:]
    assert standing(world, "a").header.fingerprint == b"\1" * 32
    at_rest(world)


def test_every_item_refreshes_the_sessions_ttl() -> None:
    world = World()
    reply = Reply()
    world.ask(Open(key(), FOREVER, reply, b"o" * 16, None, 1000, None), reply)
    position = world.step([1], reply.result.header.position).position
    for value in (2, 3, 4, 5):
        world.now += 0.7
        item = world.send([value], position, short=True)
        until(world, "writes")
        assert isinstance(world.replicas[0].writes[0].flights[0], (CohortFlight, InflightCommit))
        world.settle()
        position = item.result.position
    assert standing(world).position == position
    world.now += 1.1
    item = world.send([6], position, short=True)
    world.settle()
    assert reason(item.result) == "SESSION_NOT_FOUND"


def test_items_beyond_the_servers_room_are_refused_alone() -> None:
    world = World(limits=Limits(max_requests=2, tick=TICK))
    places = {name: warmed(world, name) for name in "abc"}
    _, replies = world.send_frame({name: (2, place) for name, place in places.items()})
    world.settle()
    assert [reply.outputs for reply in replies[:2]] == [expected([1, 2])[1:]] * 2
    assert reason(replies[2].result) == "QUEUE_FULL"
    at_rest(world)


def test_of_steps_that_come_one_by_one_each_has_its_own_deadline_and_caller() -> None:
    world = World(replay=100)
    world.replicas[0].served.due_steps = 1
    places = {name: warmed(world, name) for name in "abcd"}
    counts, one = counted(world), world.replicas[0]
    left, late, good, later = (
        alone(world, name, 2, places[name], deadline)
        for name, deadline in zip("abcd", (9.0, 1.0, 9.0, 2.0), strict=True)
    )
    left.request.gone = True  # type: ignore[union-attr]
    world.now = 1.0
    one.collect()
    (call,) = one.calls
    assert isinstance(call, (CohortCall, Batch))
    assert size(call) == 2
    assert (reason(left.result), reason(late.result)) == ("CALLER_GONE", "DEADLINE_PASSED")
    one.compute(0)
    world.now = 2.0
    one.collect()
    assert [flight.call.key.session for flight in one.writes[0].flights] == ["c"]
    assert reason(later.result) == "DEADLINE_PASSED"
    world.settle()
    assert good.outputs == expected([1, 2])[1:]
    assert standing(world, "c").header.checkpoint_step == 1, "the checkpoint that was due was another's"
    assert counts.checkpoints == 1
    assert [standing(world, name).position for name in "abd"] == [places[name] for name in "abd"]
    at_rest(world)


def test_steps_that_come_one_by_one_are_one_batch_whatever_they_ask_for() -> None:
    world = World()
    one, replies = world.replicas[0], []
    places = {name: warmed(world, name) for name in "abc"}
    for name, wanted in zip("abc", (["prediction"], [], ["prediction"]), strict=True):
        replies.append(alone(world, name, 2, places[name], wanted=frozenset(wanted)))
    one.collect()
    (call,) = one.calls
    assert size(call) == 3
    world.settle()
    assert [sorted(reply.result.outputs) for reply in replies] == [["prediction"], [], ["prediction"]]
    at_rest(world)


def test_times_of_steps_that_come_one_by_one_are_their_own() -> None:
    world = World()
    places = {name: warmed(world, name) for name in "ab"}
    counts, one = counted(world), world.replicas[0]
    first = alone(world, "a", 2, places["a"])
    world.now = 3.0
    second = alone(world, "b", 2, places["b"])
    world.now = 4.0
    one.collect()
    world.now = 6.0
    world.settle()
    assert [reply.result.queued_seconds for reply in (first, second)] == [4.0, 1.0]
    assert [reply.result.computed_seconds for reply in (first, second)] == [2.0, 2.0]
    assert [(times.queue, times.total) for times in counts.times] == [(4.0, 6.0), (1.0, 3.0)]


def test_a_poisoned_step_does_not_inherit_another_callers_leaving() -> None:
    world = World()
    places = {name: warmed(world, name) for name in "ab"}
    bad, left = (alone(world, name, value, places[name]) for name, value in (("a", POISON), ("b", 2)))
    one = world.replicas[0]
    one.collect()
    left.request.gone = True  # type: ignore[union-attr]
    world.settle()
    assert reason(bad.result) == "NON_FINITE_RESULT"
    assert left.outputs == expected([1, 2])[1:]
    at_rest(world)


def test_a_step_that_finds_no_room_is_refused_as_any_other() -> None:
    world = World(limits=Limits(max_requests=1, tick=TICK))
    places = {name: warmed(world, name) for name in "ab"}
    taken, refused = (alone(world, name, 2, places[name]) for name in "ab")
    assert reason(refused.result) == "QUEUE_FULL"
    world.settle()
    assert taken.outputs == expected([1, 2])[1:]
    late = alone(world, "a", 3, taken.result.position, deadline=0.0)
    world.settle()
    assert reason(late.result) == "DEADLINE_PASSED"
    at_rest(world)


def alone(
    world: World,
    session: str,
    value: int,
    position: Position,
    deadline: float = FOREVER,
    wanted: frozenset[str] = frozenset(["prediction"]),
) -> Reply:
    """Sends a step that comes by itself."""
    reply = Reply()
    step = Step(key(session), deadline, reply, pack([value]), 1, position, None, False, wanted, False)
    reply.request = step
    submit_alone(step, world.replicas[0].sessions)
    return reply
