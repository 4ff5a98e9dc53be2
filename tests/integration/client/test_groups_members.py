"""Members of a group that fail, are reset, deleted or stepped by others; and the rest of the group."""

from __future__ import annotations

import numpy as np
import pytest
from cellkeeper import (
    AsyncClient,
    AsyncGroup,
    GenerationChanged,
    GroupError,
    HistoryChanged,
    InvalidArgument,
    SessionNotFound,
    StepConflict,
)

from .three import IDS, ROWS


@pytest.fixture
def client(real_client: AsyncClient) -> AsyncClient:
    return real_client


@pytest.fixture
async def group(client: AsyncClient) -> AsyncGroup:
    return await client.group(IDS, model="count")


async def test_a_member_that_fails_fails_alone(group: AsyncGroup, client: AsyncClient) -> None:
    await group.step(ROWS)
    await (await client.session("b", model="count")).reset()
    with pytest.raises(GroupError, match="1 of 3 members failed: 'b'") as caught:
        await group.step(ROWS)
    error = caught.value
    assert isinstance(error.errors["b"], GenerationChanged)
    assert (list(error.errors), error.ids) == (["b"], ("a", "c"))
    assert error.outputs["prediction"].tolist() == (2 * ROWS[[0, 2]]).tolist()
    assert error.errors["b"].late_step is None
    reply = await group.step_reply(ROWS)
    assert reply.output.tolist() == (3 * ROWS[[0, 2]]).tolist()
    assert isinstance(reply.errors["b"], GenerationChanged)
    y = await group.step(ROWS, failed="nan")
    assert y[[0, 2]].tolist() == (4 * ROWS[[0, 2]]).tolist()
    assert np.isnan(y[1]).all()
    with pytest.raises(GroupError, match="1 of 1 members"):  # without any row, the answer's shape is unknown
        await group.step({"b": [1, 0]}, failed="nan")
    with pytest.raises(InvalidArgument, match="failed: got 'zero'"):
        await group.step(ROWS, failed="zero")  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="failed: got 'zero'"):
        await group.peek(ROWS, failed="zero")  # type: ignore[arg-type]
    await group.remove(["b"])
    assert await group.add(["b"]) == {"b": False}
    assert group.ids == ("a", "c", "b")
    assert (await group.step(np.ones((3, 2)))).tolist() == [[5, 1], [13, 1], [1, 1]]


async def test_deleted_and_reset_members(group: AsyncGroup, client: AsyncClient) -> None:
    await group.step(ROWS)
    assert {name: position.step for name, position in (await group.reset(["c"])).items()} == {"c": 0}
    assert (await group.step(ROWS)).tolist() == [[2, 0], [4, 0], [3, 0]]
    assert await client.delete("a", group.positions["a"].generation, model="count")
    with pytest.raises(GroupError) as caught:
        await group.step(ROWS)
    assert isinstance(caught.value.errors["a"], SessionNotFound)
    with pytest.raises(GroupError) as caught:
        await group.reset()
    assert isinstance(caught.value.errors["a"], SessionNotFound)
    assert caught.value.ids == ("b", "c")
    assert [group.positions[name].step for name in IDS] == [2, 0, 0]
    assert await group.delete() == {"a": False, "b": True, "c": True}
    assert len(group) == 0
    assert [info async for info in client.sessions(model="count")] == []


async def test_opening_insists_on_a_history_item_by_item(client: AsyncClient, group: AsyncGroup) -> None:
    await group.step(ROWS)
    known = group.positions
    again = await client.group(IDS, model="count", expect=known)
    assert (await again.step(ROWS)).tolist() == (2 * ROWS).tolist()
    wrong = {**again.positions, "b": known["b"]._replace(head=bytes(8))}
    with pytest.raises(GroupError, match="open: 1 of 3") as caught:
        await client.group(IDS, model="count", expect=wrong)
    assert isinstance(caught.value.errors["b"], HistoryChanged)
    others = caught.value.group
    assert others.ids == ("a", "c")
    assert (await others.step(ROWS[[0, 2]])).tolist() == (3 * ROWS[[0, 2]]).tolist()
    with pytest.raises(InvalidArgument, match="expect: got a position for 'z'"):
        await client.group(IDS, model="count", expect={"z": known["a"]})


async def test_the_same_steps_of_another_group_are_replayed(group: AsyncGroup, client: AsyncClient) -> None:
    other = await client.group(IDS, model="count")
    await group.step({"a": ROWS[0], "c": ROWS[2]})
    reply = await other.step_reply(ROWS)
    assert reply.replayed == (True, False, True)
    assert reply.output.tolist() == ROWS.tolist()
    assert other.positions == {**group.positions, "b": other.positions["b"]}


async def test_a_session_beside_the_group_conflicts_as_two_sessions_do(group: AsyncGroup, client: AsyncClient) -> None:
    beside = await client.session("b", model="count")
    await beside.step([7.0, 0.0])
    with pytest.raises(GroupError) as caught:
        await group.step(ROWS)
    assert isinstance(caught.value.errors["b"], StepConflict)
    assert (await beside.step([1.0, 0.0])).tolist() == [8, 0]
