"""Groups on a real server: shapes, order, outputs, forecasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pandas
import pytest
from cellkeeper import AsyncClient, AsyncGroup, Client, Closed, GroupError, InvalidArgument

from testing.bundles import counting_bundle, make_bundle
from testing.forked_server import ForkedServer

from .conftest import QUICK
from .three import IDS, ROWS


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
    incomplete: Any = {**known, "b": [[1.0]]}
    for lacking, named in ((None, "row 0 .session 'a'."), (incomplete, "row 1 .session 'b'.")):
        with pytest.raises(InvalidArgument, match=rf"known, {named}: got .*, expected \[3, 1\]") as caught:
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
