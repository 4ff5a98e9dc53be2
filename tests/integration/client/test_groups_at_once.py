"""Calls of a group that overlap, from several tasks or threads: members that come and go while other calls wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import numpy as np
import pytest
from cellkeeper import AsyncClient, AsyncGroup, AsyncSession, Client, Closed, GroupError, InvalidArgument, Position
from cellkeeper._session.group_history import GroupHistory

from testing.bundles import counting_bundle, make_bundle
from testing.forked_server import ForkedServer

from .conftest import QUICK
from .three import IDS, ROWS


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedServer]:
    folder = tmp_path_factory.mktemp("groups")
    bundles = [
        counting_bundle(folder / "count", features=2),
        make_bundle(folder / "fed", name="fed", input_size=1, feedback=[0]),
    ]
    with ForkedServer(bundles, "memory:") as server:
        yield server


@pytest.fixture
async def client(process: ForkedServer) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(process.target, timeout=20, backoff=QUICK) as client:
        yield client
        for model in ("count", "fed"):
            async for info in client.sessions(model=model):
                await client.delete(info.session, info.position.generation, model=model)


@pytest.fixture
async def group(client: AsyncClient) -> AsyncGroup:
    return await client.group(IDS, model="count")


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


async def test_a_session_is_added_once(client: AsyncClient) -> None:
    group = await client.group([], model="count")
    first, second = await asyncio.gather(group.add(IDS), group.add(["c"]), return_exceptions=True)
    assert first == dict.fromkeys(IDS, True)
    assert isinstance(second, InvalidArgument)
    assert "'c'" in str(second)
    assert (await group.step(ROWS)).tolist() == ROWS.tolist()
    assert len(group.positions) == len(group) == 3


async def test_a_member_is_removed_once(client: AsyncClient) -> None:
    """All wait for the same step. The last one comes too late: the member's place may be another's by then."""
    group = await client.group(IDS, model="count")
    _, removed, added, other = await asyncio.gather(
        group.step(ROWS), group.remove(["b"]), group.add(["d", "e"]), group.remove(["b"]), return_exceptions=True
    )
    assert removed is None
    assert added == {"d": True, "e": True}
    assert isinstance(other, InvalidArgument)
    assert group.ids == ("a", "c", "d", "e")
    rows = np.array([[1, 0], [3, 0], [4, 0], [5, 0]], np.float32)
    assert (await group.step(rows)).tolist() == [[2, 0], [6, 0], [4, 0], [5, 0]]
    assert (await group.step(rows)).tolist() == [[3, 0], [9, 0], [8, 0], [10, 0]]


async def test_a_member_leaves_while_it_is_reset(client: AsyncClient) -> None:
    group = await client.group(IDS, model="count")
    await group.step(ROWS)
    reset, removed = await asyncio.gather(group.reset(), group.remove(["b"]))
    assert list(reset) == IDS
    assert removed is None
    assert await group.add(["d"]) == {"d": True}
    assert (await group.step(ROWS)).tolist() == ROWS.tolist()


async def test_steps_of_other_members_hold_up_nobody(client: AsyncClient) -> None:
    """Three tasks step one member without a break: there is always a step that waits for it."""
    group, done = await client.group(IDS, model="count"), False

    async def steps() -> None:
        while not done:
            await group.step({"a": ROWS[0]})

    tasks = [asyncio.ensure_future(steps()) for _ in range(3)]
    assert (await group.step({"b": ROWS[1]}))["b"].tolist() == ROWS[1].tolist()
    assert (await group.peek({"b": ROWS[1]}))["b"].tolist() == (2 * ROWS[1]).tolist()
    assert (await group.state(["b"]))["h"].shape == (1, 1, 2)
    assert (await group.reset(["b"]))["b"].step == 0
    assert await group.delete(["b"]) == {"b": True}
    await group.remove(["c"])
    done = True
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("call", ["forecast", "peek"])
async def test_a_member_leaves_while_a_peek_waits(client: AsyncClient, call: str) -> None:
    """Both wait for the same step. The place of the one that leaves goes to another session, which nothing of the old
    one may reach."""
    ids, ones = ["x", "y"], np.ones((2, 1), np.float32)
    group = await client.group(ids, model="fed")
    more = {"steps": 1} if call == "forecast" else {}
    calls: list[Awaitable[Any]] = [group.step(ones), group.remove(["x"]), getattr(group, call)(ones, **more)]
    stepped, removed, seen = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(stepped, np.ndarray)
    assert removed is None
    assert isinstance(seen, GroupError)
    assert list(seen.errors) == ["x"]
    assert isinstance(seen.errors["x"], Closed)
    assert await group.add(["z"]) == {"z": True}
    for step in range(1, 4):
        assert (await group.step(ones)).shape == (2, 1)
        assert [position.step for position in group.positions.values()] == [step + 1, step]
    assert (await client.session_info("x", model="fed")).position.step == 1


async def test_a_group_whose_members_have_all_left_has_no_states(client: AsyncClient) -> None:
    group = await client.group(IDS, model="count")
    _, states = await asyncio.gather(group.remove(IDS), group.state())
    assert {name: (rows.shape, rows.dtype) for name, rows in states.items()} == {"h": ((0, 1, 2), np.dtype("float32"))}


@pytest.mark.parametrize("call", ["add", "reset", "delete"])
async def test_a_group_that_is_closed_meanwhile_stays_as_it_was(client: AsyncClient, call: str) -> None:
    group = await client.group(IDS, model="count")
    waiting = asyncio.ensure_future(getattr(group, call)(["d"] if call == "add" else IDS))
    await asyncio.sleep(0)  # it has been sent
    await group.close()
    with pytest.raises(Closed):
        await waiting
    assert group.ids == tuple(IDS)


def test_positions_are_read_where_they_change(process: ForkedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread would find a member that is on its way back to the columns where it was before it left them."""
    position, threads = GroupHistory.position, set[str]()

    def read(history: GroupHistory, row: int) -> Position:
        threads.add(threading.current_thread().name)
        return position(history, row)

    with Client(process.target, timeout=20, backoff=QUICK) as client, client.group(IDS, model="count") as group:
        monkeypatch.setattr(GroupHistory, "position", read)
        assert {position.step for position in group.positions.values()} == {0}
        assert threads == {"cellkeeper-client"}
        monkeypatch.undo()
        group.delete()
