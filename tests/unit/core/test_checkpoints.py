"""When checkpoints are written, and that the log stays bounded."""

from __future__ import annotations

import pytest
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.domain.position import advance
from cellkeeper_service.domain.store import Commit, Delete

from .acts import TICK, at_rest, opened, standing
from .counting_engine import expected
from .world import Reply, World, key, pack, reason


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
    world = World(limits=Limits(max_log_steps=10, **TICK), replay=replay)
    # a state as large as many steps: only the limit asks for a checkpoint
    world.replicas[0].version.due_steps = replay
    position = opened(world)
    for value in range(60):
        position = world.step([value, value], position).position
        record = standing(world)
        assert record.position.step - record.header.checkpoint_step <= 10


def test_the_log_does_not_pass_its_limit_while_steps_wait_for_their_commit() -> None:
    """Without `acked`, a step acknowledges the steps before it alone: no checkpoint may be written behind it. The first
    commit is in flight until the log has no room, and a candidate for a checkpoint waits behind it."""
    world = World(limits=Limits(max_log_steps=10, **TICK))
    replica = world.replicas[0]
    replica.version.due_steps = 8
    position = opened(world)
    replies: list[Reply] = []
    for value in range(14):
        replies.append(world.send([value], position))
        position = advance(position, pack([value]), 4)
        replica.collect()
        while replica.batches:
            replica.compute(0)
    cached = replica.sessions[key()].cached
    assert cached is not None
    assert (cached.step, len(replica.writes)) == (10, 1)
    while not all(reply.result for reply in replies):
        assert replica.work()
        record = standing(world)
        assert record.position.step - record.header.checkpoint_step <= 10
    assert [reply.outputs[0] for reply in replies] == expected(range(14))
    at_rest(world)


def test_acks_that_stay_behind_are_refused_until_they_come() -> None:
    world = World(limits=Limits(max_log_steps=10, **TICK))
    position = opened(world)
    for value in range(10):
        position = world.step([value], position, acked=0).position
    result = world.step([10], position, acked=0)
    assert reason(result) == "ACK_BEHIND"
    assert result.position == position
    assert standing(world).header.checkpoint_step == 0
    assert world.step([10], position, acked=10).outputs["prediction"].tolist() == expected(range(11))[10:]
    at_rest(world)


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("acked", [10, None])
def test_a_chunk_that_acknowledges_everything_is_never_refused(steps: int, acked: int | None) -> None:
    """The candidate for a checkpoint is from a time when no reply was acknowledged, and leaves the log too long."""
    world = World(limits=Limits(max_log_steps=10, **TICK), replay=1)
    position = opened(world)
    for value in range(10):
        position = world.step([value], position, acked=0).position
    chunk = list(range(10, 10 + steps))
    assert world.step(chunk, position, acked=acked).outputs["prediction"].tolist() == expected(range(10 + steps))[10:]
    header = standing(world).header
    assert header.position.step - header.checkpoint_step <= 10
    assert header.checkpoint_step <= 10
    at_rest(world)


def test_acks_behind_are_refused_from_a_cold_start_too() -> None:
    world = World(replicas=3, limits=Limits(max_log_steps=10, **TICK))
    position = opened(world)
    for value in range(10):
        position = world.step([value], position, acked=0).position
    assert reason(world.step([10], position, acked=0, replica=1)) == "ACK_BEHIND"
    assert world.step([10], position, acked=4, replica=2).outputs["prediction"].tolist() == expected(range(11))[10:]
    assert standing(world).header.checkpoint_step == 4


def test_a_candidate_from_before_the_records_checkpoint_is_not_written() -> None:
    """Another replica wrote the same history with a later checkpoint, after a fail-over had lost the last commit."""
    most = 8
    world = World(2, limits=Limits(max_log_steps=most, **TICK), replay=3)
    position = opened(world)
    at = [position]
    for value in range(6):
        before = standing(world)
        at.append(world.step([10 + value], at[-1], acked=0).position)  # the candidate stays: nothing is acknowledged
    world.store.delete_many([Delete(key(), position.generation)])
    world.store.commit_many([Commit(key(), None, before.header, before.log, before.checkpoint)])
    world.step([15], at[5], acked=5, replica=1)
    world.step([99], at[6], peek=True)  # the first replica finds the record at its cached position
    world.step([1] * (most - 1), at[6], acked=6)
    record = standing(world)
    assert record.header.checkpoint_step >= 5
    assert len(record.log) // 4 <= most
    at_rest(world)


def test_a_session_at_rest_keeps_no_record() -> None:
    world = World()
    world.step([1], opened(world), peek=True)
    session = world.replicas[0].sessions[key()]
    assert session.idle
    assert session.reading is None
