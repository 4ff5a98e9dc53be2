"""What the heart does, one behaviour at a time: the table of steps, checkpoints, slots, deadlines, failing commits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from cellkeeper_service.domain.position import Position, advance, first_position
from cellkeeper_service.domain.record import Record
from cellkeeper_service.domain.store import Load
from cellkeeper_service.sessions.limits import Limits
from cellkeeper_service.sessions.planner import TickLimits
from cellkeeper_service.sessions.requests import (
    Delete,
    Deleted,
    Fork,
    GetSession,
    GetState,
    Moved,
    Open,
    OpenReply,
    Reset,
    SessionReply,
    SetState,
    StateReply,
    StepReply,
)

from .counting_engine import POISON, expected
from .world import FOREVER, Reply, World, key, pack, reason

TICK = TickLimits(4, 8)


def opened(world: World, session: str = "s", replica: int = 0, origin: bytes = b"o" * 16) -> Position:
    reply = Reply()
    result = world.ask(Open(key(session), FOREVER, reply, origin, None, None, None), reply, replica)
    assert isinstance(result, OpenReply), result
    position: Position = result.header.position
    return position


def stands(world: World, session: str = "s") -> Record | None:
    (record,) = world.store.load_many([Load(key(session), False)])
    assert not isinstance(record, Exception)
    return record


def standing(world: World, session: str = "s") -> Record:
    record = stands(world, session)
    assert record is not None
    return record


def reset(world: World, generation: bytes, origin: bytes = b"r" * 16, session: str = "s") -> Any:
    reply = Reply()
    return world.ask(Reset(key(session), FOREVER, reply, generation, origin), reply)


def until(world: World, what: str, replica: int = 0) -> None:
    """Lets the replica work until it has sent a write ("writes") or has a call to compute ("calls")."""
    one = world.replicas[replica]
    for _ in range(10):
        one.collect()
        if getattr(one, what):
            return
        if one.loads:
            one.load(0)
        elif one.calls:
            one.compute(0)
    raise AssertionError(f"no {what}")


def at_rest(world: World) -> None:
    """Nothing is left behind: no line without a hot copy, no waiting line, no request, no slot."""
    for replica in world.replicas:
        desk = replica.sessions._desk
        assert (desk.unanswered, desk.unanswered_bytes, len(desk.waiting)) == (0, 0, 0)
        assert all(line.hot is not None and line.key == name for name, line in desk.lines.items())
        assert sum(line.hot is not None for line in desk.lines.values()) == replica.sessions.hot_count("m")


# the table, row by row


def test_positioned_without_a_record_is_not_found_and_creates_nothing() -> None:
    world = World()
    assert reason(world.step([1], first_position(b"g" * 16))) == "SESSION_NOT_FOUND"
    assert stands(world) is None
    at_rest(world)


def test_unpositioned_without_a_record_creates() -> None:
    world = World()
    first, second = world.send([5, 6]), world.send([7])
    world.settle()
    assert (first.result.created, second.result.created) == (True, False)
    assert first.outputs + second.outputs == expected([5, 6, 7])
    assert second.result.position == advance(first.result.position, pack([7]), 4)
    assert standing(world).position == second.result.position


def test_another_generation_is_refused() -> None:
    world = World()
    opened(world)
    assert reason(world.step([1], first_position(b"g" * 16))) == "GENERATION_CHANGED"


def test_the_record_picks_its_version_and_a_foreign_one_is_refused() -> None:
    old = World(versions=[b"\1"])
    position = opened(old)
    both, new = World(versions=[b"\2", b"\1"]), World(versions=[b"\2"])
    both.store = new.store = old.store
    reply = both.step([4], position)
    assert reply.served.spec.fingerprint == b"\1" * 32
    assert both.step([5]).outputs["prediction"].tolist() == expected([4, 5])[1:]
    assert reason(new.step([6])) == "MODEL_CHANGED"
    moved = reset(both, position.generation)
    assert isinstance(moved, Moved)
    assert both.step([7], moved.position).served.spec.fingerprint == b"\2" * 32
    at_rest(both)


def test_a_step_beyond_the_record_is_a_gap_and_tells_where_it_stands() -> None:
    world = World()
    position = opened(world)
    result = world.step([2], advance(position, pack([1]), 4))
    assert reason(result) == "STEP_GAP"
    assert result.position == position


def test_a_step_before_the_checkpoint_is_compacted() -> None:
    world = World(replay=2)
    start = position = opened(world)
    for value in range(8):
        position = world.step([value], position).position
    assert standing(world).header.checkpoint_step > 0
    result = world.step([0], start)
    assert reason(result) == "STEP_COMPACTED"
    assert result.position == position


def test_another_head_is_another_history() -> None:
    world = World()
    start = opened(world)
    after = world.step([1, 2], start).position
    assert reason(world.step([3], after._replace(head=b"x" * 8))) == "HISTORY_CHANGED"
    assert reason(world.step([3], Position(start.generation, 1, b"x" * 8))) == "HISTORY_CHANGED"


def test_a_duplicate_gets_its_outputs_again_whatever_the_chunk_boundaries() -> None:
    world = World(replay=100)
    start = opened(world)
    middle = world.step([1, 2, 3], start, acked=0).position
    world.step([4, 5], middle, acked=0)
    for chunk, position in (([1, 2, 3], start), ([4, 5], middle), ([1, 2, 3, 4], start)):
        reply = world.send(chunk, position, acked=0)
        world.settle()
        assert reply.result.replayed
        low = position.step
        assert reply.outputs == expected([1, 2, 3, 4, 5])[low : low + len(chunk)]
        assert reply.result.position == advance(position, pack(chunk), 4)
    assert standing(world).position.step == 5


def test_other_inputs_at_an_old_step_are_a_conflict() -> None:
    world = World(replay=100)
    start = opened(world)
    world.step([1, 2], start, acked=0)
    assert reason(world.step([9], start, acked=0)) == "STEP_CONFLICT"
    assert reason(world.step([1, 2, 3], start, acked=0)) == "STEP_CONFLICT"


def test_a_duplicate_waits_for_its_own_pending_commit() -> None:
    world = World()
    start = opened(world)
    first = world.send([1], start)
    until(world, "writes")
    again = world.send([1], start, acked=0)
    world.replicas[0].collect()
    assert not isinstance(again.result, StepReply)
    assert not world.replicas[0].loads
    world.settle()
    assert (first.result.replayed, again.result.replayed) == (False, True)
    assert again.outputs == first.outputs


def test_a_reply_does_not_leave_before_its_commit() -> None:
    world = World()
    reply = world.send([1], opened(world))
    until(world, "writes")
    world.replicas[0].reach_store(world.replicas[0].writes[0])
    assert reply.result is None
    world.replicas[0].deliver(0)
    assert reply.outputs == expected([1])


def test_the_state_comes_at_replay_only_to_those_who_want_it() -> None:
    world = World(replay=100)
    start = opened(world)
    first = world.step([1, 2, 3], start, acked=0, wants_state=True)
    second = world.step([4, 5], first.position, acked=0, wants_state=True)
    with_state = world.send([1, 2, 3], start, acked=0, wants_state=True)
    without = world.send([4, 5], first.position, acked=0)
    world.settle()
    assert with_state.result.replayed
    assert without.result.replayed
    assert with_state.result.state == first.state == expected([1, 2, 3])[-1].to_bytes(8, "little")
    assert without.result.state is None
    assert second.state == expected([1, 2, 3, 4, 5])[-1].to_bytes(8, "little")


def test_a_peek_computes_and_commits_nothing() -> None:
    world = World()
    assert reason(world.step([1], peek=True)) == "SESSION_NOT_FOUND"
    position = world.step([1], opened(world)).position
    for where in (None, position):
        reply = world.send([2, 3], where, peek=True)
        world.settle()
        assert reply.outputs == expected([1, 2, 3])[1:]
        assert reply.result.position == advance(position, pack([2, 3]), 4)
    assert standing(world).position == position
    assert world.step([2], position).outputs["prediction"].tolist() == expected([1, 2])[1:]
    at_rest(world)


def test_a_read_comes_after_the_steps_before_it() -> None:
    world = World()
    position = opened(world)
    world.send([1], position)
    state, session = Reply(), Reply()
    heart = world.replicas[0].sessions
    heart.submit(GetState(key(), FOREVER, state))
    heart.submit(GetSession(key(), FOREVER, session))
    world.settle()
    assert isinstance(state.result, StateReply)
    assert state.result.state == expected([1])[-1].to_bytes(8, "little")
    assert isinstance(session.result, SessionReply)
    assert session.result.header.position == state.result.position == advance(position, pack([1]), 4)


# checkpoints and the log


@pytest.mark.parametrize("window", [1, 4])
def test_a_steady_pipeline_checkpoints_and_its_log_stays_short(window: int) -> None:
    world = World(replay=5)
    position = opened(world)
    replies: list[Reply] = []
    values = list(range(200))
    for index, value in enumerate(values):
        acked = max(index - window + 1, 0)
        replies.append(world.send([value], position, acked=acked))
        position = advance(position, pack([value]), 4)
        if index >= window - 1:
            world.settle()
            header = standing(world).header
            assert header.checkpoint_step <= acked
            assert header.position.step - header.checkpoint_step <= 5 + 2 * window
    assert [reply.outputs[0] for reply in replies] == expected(values)
    assert standing(world).header.checkpoint_step > 180


@pytest.mark.parametrize("replay", [3, 1000])
def test_the_log_never_passes_its_limit(replay: int) -> None:
    world = World(limits=Limits(max_log_steps=10, tick=TICK), replay=replay)
    # a state of many steps' size: only the limit asks for a checkpoint
    world.replicas[0].served.due_steps = replay
    position = opened(world)
    for value in range(60):
        position = world.step([value, value], position).position
        record = standing(world)
        assert record.position.step - record.header.checkpoint_step <= 10


def test_acks_that_stay_behind_are_refused_until_they_come() -> None:
    world = World(limits=Limits(max_log_steps=10, tick=TICK))
    position = opened(world)
    for value in range(10):
        position = world.step([value], position, acked=0).position
    result = world.step([10], position, acked=0)
    assert reason(result) == "ACK_BEHIND"
    assert result.position == position
    assert standing(world).header.checkpoint_step == 0
    assert world.step([10], position, acked=10).outputs["prediction"].tolist() == expected(range(11))[10:]
    at_rest(world)


def test_acks_behind_are_refused_from_a_cold_start_too() -> None:
    world = World(replicas=3, limits=Limits(max_log_steps=10, tick=TICK))
    position = opened(world)
    for value in range(10):
        position = world.step([value], position, acked=0).position
    assert reason(world.step([10], position, acked=0, replica=1)) == "ACK_BEHIND"
    assert world.step([10], position, acked=4, replica=2).outputs["prediction"].tolist() == expected(range(11))[10:]
    assert standing(world).header.checkpoint_step == 4


# slots


@pytest.mark.parametrize("slots", [1, 2])
def test_more_sessions_than_slots(slots: int) -> None:
    world = World(slots=slots)
    names = [f"s{index}" for index in range(5)]
    positions = {name: opened(world, name) for name in names}
    for value in range(6):
        replies = {name: world.send([value, value + 1], positions[name], session=name) for name in names}
        world.settle()
        for name, reply in replies.items():
            positions[name] = reply.result.position
            flat = [one for low in range(value + 1) for one in (low, low + 1)]
            assert reply.outputs == expected(flat)[-2:]
    at_rest(world)


def with_a_starved_line(world: World) -> tuple[Reply, Reply]:
    """The replies to a step that is computed in the only slot, and to another session's that waits for the slot."""
    positions = [opened(world, name) for name in ("busy", "first")]
    running = world.send([1], positions[0], session="busy")
    until(world, "calls")
    waiting = world.send([1], positions[1], session="first")
    world.replicas[0].collect()
    world.replicas[0].load(0)
    assert len(world.replicas[0].served.starved) == 1
    return running, waiting


def test_an_open_does_not_wait_for_a_slot() -> None:
    """Its record is written while the only slot is at work; what follows it does not wait for one either."""
    world = World(slots=1)
    running, waiting = with_a_starved_line(world)
    opening, session = Reply(), Reply()
    one = world.replicas[0]
    one.sessions.submit(Open(key(), FOREVER, opening, b"o" * 16, None, None, None))
    one.collect()
    one.load(0)
    one.collect()
    one.sessions.submit(GetSession(key(), FOREVER, session))
    one.deliver(0)
    one.collect()
    one.load(0)
    assert isinstance(opening.result, OpenReply)
    assert isinstance(session.result, SessionReply)
    assert len(one.served.starved) == 1
    world.settle()
    assert running.outputs == waiting.outputs == expected([1])
    at_rest(world)


def test_a_starved_line_whose_requests_expired_does_not_displace_the_sessions_next_line() -> None:
    world = World(slots=1)
    position = opened(world)
    running, waiting = with_a_starved_line(world)
    one = world.replicas[0]
    starved = world.send([1], position, deadline=1.0)
    one.collect()
    one.load(0)
    assert len(one.served.starved) == 2
    world.now = 2.0
    one.sessions.expire()
    assert reason(starved.result) == "DEADLINE_PASSED"
    later = world.send([2], position)
    line = one.sessions._desk.lines[key()]
    for _ in range(3):  # the slot passes on
        until(world, "calls")
        one.compute(0)
        one.collect()
        one.deliver(0)
        assert one.sessions._desk.lines[key()] is line
    world.settle()
    assert running.outputs == waiting.outputs == expected([1])
    assert later.outputs == expected([2])
    at_rest(world)


def test_starved_lines_are_served_in_their_order() -> None:
    world = World(slots=1)
    positions = [opened(world, f"s{index}") for index in range(3)]
    busy = world.send([1], opened(world, "busy"), session="busy")
    until(world, "calls")
    replies = [world.send([1], position, session=f"s{index}") for index, position in enumerate(positions)]
    one = world.replicas[0]
    one.collect()
    one.load(0)
    order = [line.key.session for line in one.served.starved]
    one.compute(0)  # its commit is still to come: no slot is free yet
    assert [line.key.session for line in one.served.starved] == order == ["s0", "s1", "s2"]
    world.settle()
    assert all(isinstance(reply.result, StepReply) for reply in [busy, *replies])


def test_a_slot_freed_by_a_late_chunk_goes_to_the_line_that_waits_for_it() -> None:
    world = World(slots=1)
    position = opened(world, "other")
    late = world.send([1], opened(world), deadline=1.0)
    one = world.replicas[0]
    until(world, "calls")
    waiting = world.send([2], position, session="other")
    one.collect()
    one.load(0)
    one.compute(0)
    world.now = 2.0
    world.settle()
    assert reason(late.result) == "DEADLINE_PASSED"
    assert waiting.outputs == expected([2])
    at_rest(world)


def test_a_slot_freed_by_a_dead_first_step_goes_to_the_line_that_waits_for_it() -> None:
    world = World(slots=1)
    position = opened(world, "other")
    dead = world.send([1], deadline=1.0)
    one = world.replicas[0]
    one.collect()
    one.load(0)  # it is about to be created, and holds the slot
    waiting = world.send([2], position, session="other")
    one.sessions.take_loads()
    lines, loads = [one.sessions._desk.lines[key("other")]], [Load(key("other"), True)]
    one.sessions.loaded(lines, world.store.load_many(loads))
    world.now = 2.0
    assert one.sessions.take_calls() == []
    assert one.sessions.wants_call  # the other line has the slot now
    world.settle()
    assert reason(dead.result) == "DEADLINE_PASSED"
    assert stands(world) is None
    assert waiting.outputs == expected([2])
    at_rest(world)


# deadlines and callers


def test_a_deadline_before_compute_drops_the_step() -> None:
    world = World()
    position = opened(world)
    reply = world.send([1], position, deadline=1.0)
    world.now = 1.0
    world.settle()
    assert reason(reply.result) == "DEADLINE_PASSED"
    assert standing(world).position == position
    at_rest(world)


def test_a_deadline_before_commit_drops_the_step_and_what_was_computed_on_it() -> None:
    world = World()
    start = opened(world)
    first = world.send([1], start)
    until(world, "writes")
    middle = advance(start, pack([1]), 4)
    late = world.send([2], middle, deadline=1.0)
    behind = world.send([3], advance(middle, pack([2]), 4))
    one = world.replicas[0]
    for _ in range(2):
        one.collect()
        one.compute(0)
    world.now = 1.0
    world.settle()
    assert first.outputs == expected([1])
    assert reason(late.result) == "DEADLINE_PASSED"
    assert reason(behind.result) == "STEP_GAP"
    assert standing(world).position == middle
    assert world.step([4], middle).outputs["prediction"].tolist() == expected([1, 4])[1:]
    at_rest(world)


def test_what_was_computed_before_a_late_chunk_is_committed() -> None:
    world = World()
    position = opened(world)
    first = world.send([0], position)
    until(world, "writes")
    replies = []
    for value, deadline in ((1, FOREVER), (2, 1.0), (3, FOREVER)):
        replies.append(world.send([value], None, deadline=deadline))
        world.replicas[0].collect()
        world.replicas[0].compute(0)
    world.now = 1.0
    world.settle()
    assert first.outputs + replies[0].outputs + replies[2].outputs == expected([0, 1, 3])
    assert reason(replies[1].result) == "DEADLINE_PASSED"
    at_rest(world)


def test_a_callers_leaving_drops_its_step_alone() -> None:
    world = World()
    position = opened(world)
    gone, stays = world.send([1], None), world.send([2], None)
    assert gone.request is not None
    gone.request.gone = True
    world.settle()
    assert reason(gone.result) == "CALLER_GONE"
    assert stays.outputs == expected([2])
    assert standing(world).position == advance(position, pack([2]), 4)
    at_rest(world)


def test_an_expired_request_lets_the_next_one_start() -> None:
    world = World()
    position = opened(world)
    first = world.send([1], position)
    until(world, "writes")
    old = world.send([1], position, acked=0, deadline=1.0)  # waits for the commit
    next_one = world.send([2], advance(position, pack([1]), 4))
    world.now = 1.0
    heart = world.replicas[0].sessions
    heart.expire()
    assert reason(old.result) == "DEADLINE_PASSED"
    assert heart.wants_call
    world.settle()
    assert first.outputs + next_one.outputs == expected([1, 2])


def test_nothing_is_read_for_requests_that_have_expired() -> None:
    world = World()
    reply = world.send([1], deadline=1.0)
    world.now = 1.0
    heart = world.replicas[0].sessions
    heart.expire()
    assert reason(reply.result) == "DEADLINE_PASSED"
    assert heart.take_loads() == ([], [])
    at_rest(world)


# bounds


def test_the_queues_are_bounded() -> None:
    world = World(limits=Limits(max_requests=3, max_session_requests=2, tick=TICK))
    replies = [world.send([1]) for _ in range(3)]
    assert reason(replies[2].result) == "QUEUE_FULL"
    world.send([1], session="t")
    assert reason(world.send([1], session="u").result) == "QUEUE_FULL"
    world.settle()
    assert [reply.outputs for reply in replies[:2]] == [expected([1]), expected([1, 1])[1:]]
    at_rest(world)


def test_the_bytes_of_unanswered_requests_are_bounded() -> None:
    world = World(limits=Limits(max_request_bytes=3 * (4 + 8), tick=TICK))
    first, second = world.send([1, 2]), world.send([3, 4], session="t")
    assert reason(second.result) == "QUEUE_FULL"
    world.settle()
    assert first.outputs == expected([1, 2])
    assert isinstance(world.step([3, 4], session="t"), StepReply)
    at_rest(world)


# results that are not finite


def test_a_poisoned_step_fails_alone() -> None:
    world = World()
    start = opened(world)
    other = opened(world, "t")
    bad, good = world.send([POISON], start), world.send([1], other, session="t")
    behind = world.send([2], advance(start, pack([POISON]), 4))
    world.settle()
    assert reason(bad.result) == "NON_FINITE_RESULT"
    assert bad.result.position == start
    assert reason(behind.result) == "STEP_GAP"
    assert good.outputs == expected([1])
    assert world.step([1, 2, 3, 4, POISON, 5]).reason.name == "NON_FINITE_RESULT"
    assert world.step([1], start).outputs["prediction"].tolist() == expected([1])
    at_rest(world)


def test_a_poisoned_step_behind_others_fails_alone() -> None:
    world = World()
    replies = [world.send([value]) for value in (1, POISON, 2)]
    world.settle()
    assert reason(replies[1].result) == "NON_FINITE_RESULT"
    assert replies[0].outputs + replies[2].outputs == expected([1, 2])
    at_rest(world)


def test_a_first_step_that_is_poisoned_creates_nothing() -> None:
    world = World()
    assert reason(world.step([POISON])) == "NON_FINITE_RESULT"
    assert stands(world) is None
    at_rest(world)


def test_a_poisoned_step_on_a_stale_hot_copy_is_decided_on_the_record() -> None:
    world = World(replicas=2)
    start = opened(world)
    world.step([1], start)
    moved = world.step([2], None, replica=1).position
    result = world.step([POISON], advance(start, pack([1]), 4))
    assert reason(result) == "STEP_CONFLICT"
    assert result.position == moved


def test_an_engine_that_raises_fails_its_requests_and_nothing_else() -> None:
    world = World()
    start = opened(world)
    first = world.send([1], start)
    until(world, "writes")
    middle = advance(start, pack([1]), 4)
    bad, behind = world.send([2], middle), world.send([3], advance(middle, pack([2]), 4))
    one = world.replicas[0]
    one.collect()
    one.sessions.failed(one.calls.pop(0))
    world.settle()
    assert first.outputs == expected([1])
    assert reason(bad.result) == "INTERNAL_ERROR"
    assert reason(behind.result) == "STEP_GAP"
    assert world.step([2], middle).outputs["prediction"].tolist() == expected([1, 2])[1:]
    at_rest(world)


# commits that fail


@pytest.mark.parametrize("lands", ["before", "after", "never"])
def test_an_unknown_outcome_is_decided_again(lands: str) -> None:
    world = World()
    start = opened(world)
    reply = world.send([1], start)
    behind = world.send([2], advance(start, pack([1]), 4))
    until(world, "writes")
    one = world.replicas[0]
    if lands == "before":
        one.reach_store(one.writes[0])
    write = one.lose(0)
    one.collect()
    one.load(0)
    if lands == "after":
        one.reach_store(write)
    world.settle()
    assert reply.outputs + behind.outputs == expected([1, 2])
    assert reply.result.replayed == (lands != "never")
    assert standing(world).position.step == 2
    at_rest(world)


def test_an_unknown_outcome_without_a_position_is_not_tried_again() -> None:
    world = World()
    opened(world)
    lost, behind = world.send([1]), world.send([2])
    until(world, "writes")
    world.replicas[0].lose(0)
    world.settle()
    assert reason(lost.result) == "OUTCOME_UNKNOWN"
    assert behind.outputs == expected([2])


def test_a_refused_commit_takes_what_was_computed_on_it_along() -> None:
    world = World()
    start = opened(world)
    reply = world.send([1], start)
    until(world, "writes")
    behind = world.send([2], advance(start, pack([1]), 4))
    free = world.send([3], None)
    one = world.replicas[0]
    for _ in range(2):
        one.collect()
        one.compute(0)
    one.refuse(0)
    world.settle()
    assert reason(reply.result) == "STORE_UNAVAILABLE"
    assert reason(behind.result) == "STEP_GAP"
    assert free.outputs == expected([3])
    assert standing(world).position == advance(start, pack([3]), 4)
    at_rest(world)


def test_a_store_that_cannot_be_read_is_told_to_those_who_asked() -> None:
    world = World()
    reply = world.send([1])
    world.replicas[0].collect()
    late = world.send([2])
    world.replicas[0].load(0, lose=True)
    assert reason(reply.result) == "STORE_UNAVAILABLE"
    world.settle()
    assert late.outputs == expected([2])


def test_a_stale_hot_copy_is_found_out_by_its_commit() -> None:
    world = World(replicas=2)
    position = opened(world)
    position = world.step([1], position).position
    world.step([2], position, replica=1)
    result = world.step([3], None)
    assert result.outputs["prediction"].tolist() == expected([1, 2, 3])[2:]
    assert reason(world.step([9], position)) in ("STEP_CONFLICT", "STEP_COMPACTED")


# lives


def test_a_reset_between_pipelined_steps() -> None:
    world = World()
    start = opened(world)
    before = world.send([1], start)
    answer = Reply()
    world.replicas[0].sessions.submit(Reset(key(), FOREVER, answer, start.generation, b"r" * 16))
    behind, free = world.send([2], advance(start, pack([1]), 4)), world.send([3])
    world.settle()
    assert before.outputs == expected([1])
    assert reason(behind.result) == "GENERATION_CHANGED"
    assert free.outputs == expected([3])
    assert free.result.position == advance(answer.result.position, pack([3]), 4)


def test_reset_and_set_state_again_with_the_same_id_find_their_own_work() -> None:
    world = World()
    start = opened(world)
    moved = reset(world, start.generation)
    assert reset(world, start.generation) == moved
    assert reason(reset(world, start.generation, b"x" * 16)) == "GENERATION_CHANGED"
    reply, state = Reply(), expected([1, 2])[-1].to_bytes(8, "little")
    set_to = world.ask(SetState(key(), FOREVER, reply, moved.position.generation, b"z" * 16, 2, state), reply)
    assert set_to.position.step == 2
    assert world.step([3], set_to.position).outputs["prediction"].tolist() == expected([1, 2, 3])[2:]


def test_a_reset_with_an_unknown_outcome_that_lands_late() -> None:
    world = World()
    start = opened(world)
    answer = Reply()
    world.replicas[0].sessions.submit(Reset(key(), FOREVER, answer, start.generation, b"r" * 16))
    until(world, "writes")
    one = world.replicas[0]
    late = one.lose(0)
    until(world, "writes")  # its second try
    one.reach_store(late)
    world.settle()
    assert standing(world).position == answer.result.position
    assert world.step([1], answer.result.position).outputs["prediction"].tolist() == expected([1])


def fork(world: World, reply: Reply, at: Position | None = None, origin: bytes = b"f" * 16) -> Fork:
    return Fork(key(), FOREVER, reply, key("t"), at, origin)


def test_a_fork_copies_the_point_asked_for() -> None:
    world = World(replay=100)
    start = opened(world)
    middle = world.step([1, 2], start, acked=0).position
    world.step([3], middle, acked=0)
    reply = Reply()
    moved = world.ask(fork(world, reply, middle), reply)
    assert (moved.position.step, moved.position.head) == (2, middle.head)
    assert moved.position.generation != middle.generation
    assert world.step([4], moved.position, session="t").outputs["prediction"].tolist() == expected([1, 2, 4])[2:]
    again, other = Reply(), Reply()
    assert isinstance(world.ask(fork(world, again, middle), again), Moved)
    assert reason(world.ask(fork(world, other, middle, b"x" * 16), other)) == "SESSION_EXISTS"
    at_rest(world)


def test_a_fork_retried_after_its_source_is_gone_finds_its_own_work() -> None:
    world = World()
    start = opened(world)
    first, gone, again = Reply(), Reply(), Reply()
    moved = world.ask(fork(world, first), first)
    assert world.ask(Delete(key(), FOREVER, gone, start.generation), gone) == Deleted(True)
    assert world.ask(fork(world, again), again) == moved
    other = Reply()
    assert reason(world.ask(fork(world, other, None, b"x" * 16), other)) == "SESSION_NOT_FOUND"
    at_rest(world)


@pytest.mark.parametrize("lands", [False, True])
def test_a_fork_with_an_unknown_outcome(lands: bool) -> None:
    world = World()
    world.step([1], opened(world))
    reply = Reply()
    one = world.replicas[0]
    one.sessions.submit(fork(world, reply))
    until(world, "writes")
    late = one.lose(0)
    if lands:
        one.reach_store(late)
    world.settle()
    assert standing(world, "t").position == reply.result.position
    assert world.step([2], None, session="t").outputs["prediction"].tolist() == expected([1, 2])[1:]
    at_rest(world)


@pytest.mark.parametrize("lands", [False, True])
def test_a_delete_retried_after_an_unknown_outcome(lands: bool) -> None:
    world = World()
    start = opened(world)
    reply = Reply()
    one = world.replicas[0]
    one.sessions.submit(Delete(key(), FOREVER, reply, start.generation))
    until(world, "writes")
    late = one.lose(0)
    if lands:
        one.reach_store(late)
    world.settle()
    assert reply.result == Deleted(True)
    assert stands(world) is None
    at_rest(world)


def test_a_late_delete_does_not_touch_the_next_life() -> None:
    world = World()
    start = opened(world)
    reply = Reply()
    one = world.replicas[0]
    one.sessions.submit(Delete(key(), FOREVER, reply, start.generation))
    until(world, "writes")
    late = one.lose(0)
    world.settle()
    again = opened(world, origin=b"p" * 16)
    one.reach_store(late)
    assert world.step([1], again).outputs["prediction"].tolist() == expected([1])


def test_a_session_that_expired_is_not_found_though_it_is_hot() -> None:
    world = World(limits=Limits(default_ttl_ms=1000, tick=TICK))
    position = opened(world)
    position = world.step([1], position).position
    world.now = 0.9
    assert isinstance(world.step([2], position, peek=True), StepReply)  # a sign of life
    world.now = 1.8
    position = world.step([2], position).position
    world.now = 3.0
    assert reason(world.step([3], position)) == "SESSION_NOT_FOUND"
    assert world.step([4]).created
    at_rest(world)


def open_with_ttl(world: World, ttl_ms: int, replica: int) -> Any:
    reply = Reply()
    return world.ask(Open(key(), FOREVER, reply, b"q" * 16, None, ttl_ms, None), reply, replica)


def test_a_ttl_set_on_another_replica_outlives_a_step_on_a_hot_copy() -> None:
    world = World(replicas=2)
    position = world.step([1], opened(world)).position
    open_with_ttl(world, 5000, replica=1)
    world.step([2], position)
    assert standing(world).header.ttl_ms == 5000


def test_a_step_on_a_hot_copy_after_a_lost_tail_was_written_again_with_a_checkpoint() -> None:
    """A fail-over loses a commit; another replica writes the same history again, but with a checkpoint in it. The
    first replica's hot copy stands at the same position, and appends to what it takes for the old log."""
    world = World(replicas=2, replay=2)
    positions = [opened(world)]
    for value in range(3):
        kept = world.store._kept[key()]
        before, chunks = (kept.header, kept.checkpoint), list(kept.chunks)
        positions.append(world.step([value], positions[-1], acked=0).position)
    lost = world.store._kept[key()]
    (lost.header, lost.checkpoint), lost.chunks = before, chunks
    world.step([2], positions[2], acked=2, replica=1)
    assert standing(world).header.checkpoint_step == 2
    position = world.step([3], positions[3], acked=0).position
    world.replicas.append(World(replicas=1).replicas[0])
    world.replicas[2].world = world
    assert world.step([4], position, acked=0, replica=2).outputs["prediction"].tolist() == expected(range(5))[4:]


def test_outputs_of_a_session_in_order() -> None:
    """Positions chain, whatever mixture of chunks a session is sent."""
    world = World(slots=2)
    chunks = [[1], [2, 3], [4, 5, 6, 7, 8], [9]]
    replies = [world.send(chunk) for chunk in chunks]
    world.settle()
    flat = [value for chunk in chunks for value in chunk]
    assert [value for reply in replies for value in reply.outputs] == expected(flat)
    for (before, after), chunk in zip(pairwise(replies), chunks[1:], strict=True):
        assert after.result.position == advance(before.result.position, pack(chunk), 4)
    at_rest(world)
