"""Groups on a real server: shapes, order, refusals, and members that join, leave and fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pandas
import pytest
from cellkeeper import (
    AsyncClient,
    AsyncGroup,
    AsyncSession,
    Client,
    Closed,
    GenerationChanged,
    GroupError,
    HistoryChanged,
    InvalidArgument,
    SessionNotFound,
    StepConflict,
)

from testing.bundles import counting_bundle, make_bundle
from testing.forked_server import ForkedServer

from .conftest import QUICK

IDS = ["a", "b", "c"]
ROWS = np.array([[1, 0], [2, 0], [3, 0]], np.float32)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    folder = tmp_path_factory.mktemp("groups")
    tokens = {"kind": "tokens", "vocabulary": 5, "embedding_size": 3}
    bundles = [
        counting_bundle(folder / "count", features=2),
        make_bundle(folder / "words", name="words", input=tokens),
        make_bundle(folder / "fed", name="fed", input_size=2, feedback=[0, "known"]),
    ]
    with ForkedServer(bundles, "memory:") as server:
        yield server


@pytest.fixture
async def client(process: ForkedServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(process.target, timeout=20, backoff=QUICK) as client:
        yield client
        for model in ("count", "words", "fed"):
            infos = [info async for info in client.sessions(model=model)]
            await asyncio.gather(
                *(client.delete(info.session, info.position.generation, model=model) for info in infos)
            )


@pytest.fixture
async def group(client: AsyncClient) -> AsyncGroup:
    return await client.group(IDS, model="count")


# ---------------------------------------------------------------------------------------------- shapes and order


async def test_rows_are_the_members_in_their_order(group: AsyncGroup, client: AsyncClient) -> None:
    assert (group.ids, len(group), "b" in group, "z" in group) == (("a", "b", "c"), 3, True, False)
    y = await group.step(ROWS)
    assert y.tolist() == ROWS.tolist()
    y[0, 0] = 99  # the array is the caller's own
    assert (await group.step(ROWS.tolist())).tolist() == (2 * ROWS).tolist()
    chunk = np.stack([ROWS, ROWS], axis=1)
    assert chunk.shape == (3, 2, 2)
    assert (await group.step(chunk)).tolist() == np.stack([3 * ROWS, 4 * ROWS], axis=1).tolist()
    assert [position.step for position in group.positions.values()] == [4, 4, 4]
    for name in IDS:  # the heads, too, are those of a separate session
        assert (await client.session(name, model="count")).position == group.positions[name]
    assert client.counters.frames_sent == 3
    assert client.counters.steps_sent == 12
    assert client.counters.retries == 0


async def test_a_dict_steps_any_part_and_gives_a_dict(group: AsyncGroup) -> None:
    y = await group.step({"c": [3, 0], "a": np.array([1.0, 0.0])})
    assert {name: row.tolist() for name, row in y.items()} == {"c": [3, 0], "a": [1, 0]}
    assert list(y) == ["c", "a"]
    y = await group.step({"b": np.ones((2, 2)), "c": np.ones((2, 2))})
    assert {name: row.tolist() for name, row in y.items()} == {"b": [[1, 1], [2, 2]], "c": [[4, 1], [5, 2]]}
    assert [position.step for position in group.positions.values()] == [1, 2, 3]


async def test_a_data_frame_steps_the_ids_in_its_index(group: AsyncGroup) -> None:
    frame = pandas.DataFrame({"x": [3, 1], "y": [0.5, 0.25]}, index=["c", "a"])
    assert (await group.step(frame)).tolist() == [[3, 0.5], [1, 0.25]]
    assert [position.step for position in group.positions.values()] == [1, 0, 1]
    missing = pandas.DataFrame({"x": [3, 1], "y": [0.5, None]}, index=["c", "a"])
    with pytest.raises(InvalidArgument, match=r"row 1 \(session 'a'\): got NaN or infinity at time step 0, feature 1"):
        await group.step(missing)


async def test_token_ids(client: AsyncClient) -> None:
    group = await client.group(IDS, model="words")
    alone = [await client.session(f"{name}-alone", model="words") for name in IDS]
    for rows in ([0, 4, 2], np.array([[1, 2], [3, 4], [0, 0]])):
        expected = [await session.step(row) for session, row in zip(alone, rows, strict=True)]
        assert (await group.step(rows)).tolist() == [row.tolist() for row in expected]
    with pytest.raises(InvalidArgument, match=r"row 1 \(session 'b'\): got token id 5, expected 0..4"):
        await group.step([0, 5, 2])
    by_id = await group.peek({"c": 1, "a": 4})
    assert (await group.step(pandas.Series([1, 4], ["c", "a"]))).tolist() == [by_id["c"].tolist(), by_id["a"].tolist()]
    with pytest.raises(InvalidArgument, match=r"got 0 at 0, expected the id .* in the index of the .*Series"):
        await group.step(pandas.Series([0, 4, 2]))


async def test_a_reply_has_all_outputs_and_positions(group: AsyncGroup) -> None:
    reply = await group.step_reply(ROWS, outputs=("prediction", "hidden", "state"))
    shapes = {name: values.shape for name, values in reply.outputs.items()}
    assert shapes == {"prediction": (3, 2), "hidden": (3, 2), "state.h": (3, 1, 2)}
    assert reply.state["h"][:, 0].tolist() == ROWS.tolist()
    assert reply.positions == tuple(group.positions.values())
    assert (reply.ids, reply.errors, reply.replayed) == (("a", "b", "c"), {}, (False, False, False))
    assert group.last_reply is reply
    assert 0 < reply.computed_seconds < 20
    assert 0 < reply.queued_seconds < 20
    chunk = await group.step_reply(np.ones((3, 2, 2)), outputs=("state", "prediction"))
    assert {name: values.shape for name, values in chunk.outputs.items()} == {
        "state.h": (3, 1, 2),
        "prediction": (3, 2, 2),
    }


async def test_peeks_forecasts_and_states_change_nothing(group: AsyncGroup, client: AsyncClient) -> None:
    await group.step(ROWS)
    assert (await group.peek(ROWS)).tolist() == (2 * ROWS).tolist()
    assert {name: row.tolist() for name, row in (await group.peek({"c": [[1, 1], [1, 1]]})).items()} == {
        "c": [[4, 1], [5, 2]]
    }
    assert (await group.peek_reply({"c": [[1, 1], [1, 1]]})).output.tolist() == [[[4, 1], [5, 2]]]
    assert (await group.state())["h"][:, 0].tolist() == ROWS.tolist()
    assert (await group.state(["c", "a"]))["h"][:, 0].tolist() == [[3, 0], [1, 0]]
    with pytest.raises(InvalidArgument, match="feedback"):
        await group.forecast(ROWS, steps=2)
    assert [position.step for position in group.positions.values()] == [1, 1, 1]


async def test_forecasts(client: AsyncClient) -> None:
    group = await client.group(IDS, model="fed")
    await group.step(np.stack([ROWS, ROWS], axis=1))
    known = {name: np.full((3, 1), number) for number, name in enumerate(IDS)}
    reply = await group.forecast_reply(ROWS, steps=3, known=known, outputs=("prediction", "state"))
    for row, name in enumerate(IDS):
        session = await client.session(name, model="fed")
        alone = await session.forecast_reply(ROWS[row], steps=3, known=known[name], outputs=("prediction", "state"))
        assert reply.output[row].tolist() == alone.output.tolist()
        assert reply.state["h"][row].tolist() == alone.state["h"].tolist()
        assert reply.positions[row] == alone.position
    assert reply.output.shape == (3, 4, 1)
    part = await group.forecast({"c": ROWS[2]}, steps=3, known={"c": known["c"]})
    assert part["c"].tolist() == reply.output[2].tolist()
    assert [position.step for position in group.positions.values()] == [2, 2, 2]
    lacks: list[tuple[Any, str]] = [
        (None, "row 0 .session 'a'."),
        ({**known, "b": [[1.0]]}, "row 1 .session 'b'."),
    ]
    for lacking, place in lacks:
        with pytest.raises(InvalidArgument, match=rf"known, {place}: got .*, expected \[3, 1\]") as caught:
            await group.forecast(ROWS, steps=3, known=lacking)
        assert caught.value.field == "known"
    for wrong in (known["a"], [known["a"]] * 3):
        with pytest.raises(InvalidArgument, match=r"known: got .*, expected a mapping from ids"):
            await group.forecast(ROWS, steps=3, known=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="known: got 'a', expected ids of members that have a row in `inputs`"):
        await group.forecast({"c": ROWS[2]}, steps=3, known=known)
    with pytest.raises(InvalidArgument, match="failed: got 'zero'"):
        await group.forecast(ROWS, steps=3, known=known, failed="zero")  # type: ignore[arg-type]


async def test_what_a_group_is_opened_with_holds_for_all_members(client: AsyncClient) -> None:
    group = await client.group(IDS[:2], model="count", ttl=timedelta(hours=1), outputs=("hidden", "prediction"))
    await group.add(IDS[2:])
    await group.reset(["b"])
    assert list((await group.step_reply(ROWS)).outputs) == ["hidden", "prediction"]
    assert list((await group.peek_reply(ROWS)).outputs) == ["hidden", "prediction"]
    assert list((await group.step_reply(ROWS, outputs=("state",))).outputs) == ["state.h"]
    assert {info.ttl_seconds async for info in client.sessions(model="count")} == {3600}


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (np.ones((2, 2)), "inputs: got 2 rows, expected 3, one per member"),
        ([[1, 0], [2, 0]], "inputs: got 2 rows, expected 3"),
        (1.0, "inputs: got float, expected 3 rows"),
        (np.ones((3, 3)), r"row 0 \(session 'a'\): got shape \[3\], expected \[2\] or \[T, 2\]"),
        ([[1, 0], [2, 0, 0], [3, 0]], r"row 1 \(session 'b'\): got shape \[3\]"),
        ([[1, 0], [2, 0], [3, np.inf]], r"row 2 \(session 'c'\): got NaN or infinity at time step 0, feature 1"),
        ([[1, 0], ["x", 0], [3, 0]], r"row 1 \(session 'b'\)"),
        ([[1, 0], [[2, 0], [2, 0]], [3, 0]], "row 1 .* with a different number of time steps than row 0"),
        (np.ones((3, 0, 2)), r"row 0 .*no time step"),
        ({"a": [1, 0], "z": [1, 0]}, "inputs: got 'z' at 1, expected the id of a member"),
        ({1: [1, 0]}, "inputs: got 1 at 0, expected the id of a member"),
        (
            pandas.DataFrame([[1, 0], [2, 0], [3, 0]]),
            "inputs: got 0 at 0, expected the id of a member as a key of the dict, or in the index of the DataFrame",
        ),
        ({}, "inputs: got no rows"),
        (pandas.DataFrame([[1, 0], [2, 0]], index=["a", "a"]), "inputs: got 'a' twice"),
    ],
)
async def test_wrong_rows_are_refused_here(group: AsyncGroup, client: AsyncClient, rows: object, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        await group.step(rows)  # type: ignore[call-overload]
    assert client.counters.frames_sent == 0


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ("abc", "sessions: got the str 'abc', expected several ids"),
        (["a", 7], r"sessions\[1\]: got int 7, expected a str"),
        (["a", ""], r"sessions\[1\]: got 0 bytes"),
        (["a", "b", "a"], "sessions: got 'a' twice"),
    ],
)
async def test_wrong_ids_are_refused_here(client: AsyncClient, ids: object, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        await client.group(ids, model="count")  # type: ignore[arg-type]
    assert [info async for info in client.sessions(model="count")] == []


async def test_an_empty_group_takes_members_later(client: AsyncClient) -> None:
    group = await client.group([], model="count")
    with pytest.raises(InvalidArgument, match="the group has no members"):
        await group.step(np.ones((0, 2)))
    assert await group.add(IDS) == {"a": True, "b": True, "c": True}
    assert (await group.step(ROWS)).tolist() == ROWS.tolist()


# ---------------------------------------------------------------------------------------------- members that fail


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


# ---------------------------------------------------------------------------------------------- side by side


async def test_groups_and_sessions_step_side_by_side(client: AsyncClient) -> None:
    groups = [await client.group([f"{name}{number}" for name in IDS], model="count") for number in range(4)]
    sessions = [await client.session(f"single-{number}", model="count") for number in range(4)]

    async def many(group: AsyncGroup) -> list[list[float]]:
        for _ in range(20):
            y = await group.step(ROWS)
        return list(y.tolist())

    async def single(session: AsyncSession) -> list[float]:
        replies = [y.tolist() async for y in session.stream([[1.0, 0.0]] * 20)]
        return list(replies[-1])

    results = await asyncio.gather(*map(many, groups), *map(single, sessions))
    assert results == [(20 * ROWS).tolist()] * 4 + [[20, 0]] * 4
    assert client.counters.stream_reconnects == 0


async def test_a_reset_and_a_step_at_the_same_time(group: AsyncGroup, client: AsyncClient) -> None:
    """The step is sent while the reset is in flight. Whichever comes first, the group ends at the server's position."""
    for _ in range(5):
        reset, reply = await asyncio.gather(group.reset(["a", "b"]), group.step_reply(ROWS))
        assert set(reply.errors) <= {"a", "b"}
        assert reply.ids[-1] == "c"
        assert list(reset) == ["a", "b"]
        assert {info.session: info.position async for info in client.sessions(model="count")} == group.positions
        assert (await group.step_reply(ROWS)).errors == {}


async def test_peeks_and_steps_at_the_same_time(group: AsyncGroup) -> None:
    steps, peeks = [], []
    for _ in range(5):
        steps.append(asyncio.ensure_future(group.step(ROWS)))
        peeks.append(asyncio.ensure_future(group.peek_reply(ROWS)))
    assert [(await step).tolist() for step in steps] == [(count * ROWS).tolist() for count in range(1, 6)]
    assert [(await peek).errors for peek in peeks] == [{}] * 5


async def test_steps_of_one_member_keep_the_order_of_the_calls(group: AsyncGroup) -> None:
    calls = [asyncio.ensure_future(group.step({"a": [float(10**power), 0]})) for power in range(5)]
    calls.append(asyncio.ensure_future(group.step({"b": [1, 0]})))
    last = asyncio.ensure_future(group.step(ROWS))
    assert [float((await call)["a"][0]) for call in calls[:5]] == [1, 11, 111, 1111, 11111]
    assert (await last).tolist() == [[11112, 0], [3, 0], [3, 0]]


async def test_a_step_larger_than_a_frame_is_several(process: ForkedServer) -> None:
    ids = [f"many-{number}" for number in range(25)]
    async with AsyncClient(process.target, max_frame_items=10, backoff=QUICK) as client:
        group = await client.group(ids, model="count")
        assert (await group.step(np.arange(50).reshape(25, 2))).tolist() == np.arange(50.0).reshape(25, 2).tolist()
        assert client.counters.frames_sent == 3
        assert (await group.peek(np.ones((25, 2))))[24].tolist() == [49, 50]
        await group.delete()


def test_the_blocking_group(process: ForkedServer) -> None:
    with Client(process.target, timeout=20, backoff=QUICK) as client, client.group(IDS, model="count") as group:
        assert repr(group) == "<Group of 3 sessions of 'count'>"
        assert group.step(ROWS).tolist() == ROWS.tolist()
        assert {name: y.tolist() for name, y in group.step({"b": [1, 0]}).items()} == {"b": [3, 0]}
        assert group.step_reply(ROWS).positions == tuple(group.positions.values())
        assert group.peek(ROWS).tolist() == (3 * ROWS + [[0, 0], [1, 0], [0, 0]]).tolist()
        assert group.state(["b"])["h"].tolist() == [[[5, 0]]]
        client.session("a", model="count").reset()
        with pytest.raises(GroupError) as caught:
            client.group(["a", "b"], model="count", expect={"a": group.positions["a"]})
        assert caught.value.group.step({"b": [1, 0]})["b"].tolist() == [6, 0]
        with pytest.raises(GroupError) as caught:
            group.add(["e", "f"], expect={"e": group.positions["a"]})
        assert caught.value.group is group
        group.delete(["f"])
        assert (group.unsettled, group.settle()) == ({}, {})
        assert group.delete(["a"]) == {"a": False}
        group.remove(["b"])
        assert group.reset()["c"].step == 0
        assert group.add(["d"]) == {"d": True}
        assert (group.ids, len(group), "d" in group, group.model.name) == (("c", "d"), 2, True, "count")
        group.close()
        with pytest.raises(Closed):
            group.step(ROWS[:2])
        for info in list(client.sessions(model="count")):
            client.delete(info.session, info.position.generation, model="count")
