"""Steps of groups whose callers stopped waiting: deadlines, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
from cellkeeper import AsyncGroup, CellkeeperError, CommitConflict, DeadlineExceeded, GroupError
from cellkeeper._session.session_sender import UNSETTLED

from .conftest import until
from .counting_server import CountingServer
from .counting_wire import Refused
from .ones import ONES, count_together


async def test_a_deadline_makes_late_steps_which_count(server: CountingServer, group: AsyncGroup) -> None:
    await count_together(group, 1)
    server.gate.clear()
    with pytest.raises(GroupError) as caught:
        await group.step(2 * ONES, timeout=0.05)
    errors = caught.value.errors
    assert [type(error) for error in errors.values()] == [DeadlineExceeded] * 8
    late = {name: (error.late_step,) for name, error in errors.items()}
    assert group.unsettled == late
    with pytest.raises(GroupError) as caught:
        await group.step(4 * ONES, timeout=0.05)
    assert [error.late_step for error in caught.value.errors.values()] == [None] * 8  # not sent
    server.gate.set()
    reply = await group.step_reply(8 * ONES)
    assert reply.output.tolist() == [[11, 11]] * 8
    assert reply.late_steps == late
    assert [steps[0].applied for steps in late.values() if steps[0] is not None] == [True] * 8
    assert group.unsettled == await group.settle() == {}
    assert server.applied_steps == 8 * 3


async def test_settling_waits_for_late_steps(server: CountingServer, group: AsyncGroup) -> None:
    server.gate.clear()
    task = asyncio.ensure_future(group.step({"s0": [1, 1], "s1": [2, 2]}))
    await until(lambda: server.frames == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(group.unsettled) == ["s0", "s1"]
    with pytest.raises((DeadlineExceeded, GroupError)):
        await group.settle(timeout=0.05)
    server.gate.set()
    settled = await group.settle()
    assert {name: (step.applied, step.outputs["prediction"].tolist()) for name, (step,) in settled.items()} == {
        "s0": (True, [1, 1]),
        "s1": (True, [2, 2]),
    }
    assert [position.step for position in group.positions.values()] == [1, 1, 0, 0, 0, 0, 0, 0]


async def test_a_step_that_waits_for_its_members_is_not_sent_after_its_deadline(
    server: CountingServer, group: AsyncGroup
) -> None:
    server.gate.clear()
    first = asyncio.ensure_future(group.step(ONES))
    await until(lambda: server.frames == 1)
    with pytest.raises(GroupError, match="it was not sent: earlier steps of its members are still unanswered"):
        await group.step(16 * ONES, timeout=0.05)
    cancelled = asyncio.ensure_future(group.step(32 * ONES))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    server.gate.set()
    assert (await first).tolist() == [[1, 1]] * 8
    assert (await group.step(ONES)).tolist() == [[2, 2]] * 8


async def test_each_member_says_why_it_was_not_answered_even_if_the_groups_timer_fires_first(
    server: CountingServer, group: AsyncGroup
) -> None:
    refusals = 100_000
    server.refusals = [Refused("COMMIT_CONFLICT")] * refusals
    refused = await _expired(group, lambda: len(server.refusals) < refusals - 8)  # each has been refused once
    assert [type(error.__cause__) for error in refused.values()] == [CommitConflict] * 8
    refusals = len(server.refusals)
    held_back = await _expired(group, lambda: len(server.refusals) < refusals)
    assert [error.message.partition("; ")[2] for error in held_back.values()] == [UNSETTLED] * 8
    assert [error.late_step for error in held_back.values()] == [None] * 8


async def _expired(group: AsyncGroup, ready: Callable[[], bool]) -> Mapping[str, CellkeeperError]:
    """Returns the errors of a step whose deadline passes, for the group's sender, once this is so."""
    step = asyncio.ensure_future(group.step_reply(ONES, timeout=60))
    await until(ready)
    group._sender.expire(asyncio.get_running_loop().time() + 60)
    return (await step).errors
