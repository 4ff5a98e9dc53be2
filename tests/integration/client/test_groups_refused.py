"""What a group refuses before anything is sent: rows, ids, calls without members."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from cellkeeper import AsyncClient, AsyncGroup, InvalidArgument

from .three import IDS, ROWS


@pytest.fixture
def client(real_client: AsyncClient) -> AsyncClient:
    return real_client


@pytest.fixture
async def group(client: AsyncClient) -> AsyncGroup:
    return await client.group(IDS, model="count")


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
