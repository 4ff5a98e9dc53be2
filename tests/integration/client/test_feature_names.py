"""Named values are matched by name if the model's features have names; values without names go by order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cellkeeper import AsyncClient, Client, InvalidArgument, Model, TensorSpec
from cellkeeper._session.group_inputs import GroupInputs, named_rows
from cellkeeper._session.inputs import Inputs

from testing.bundles import counting_bundle
from testing.forked_server import ForkedServer

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
FRAME = pd.DataFrame(ROWS, columns=["a", "b", "c"])
SWAPPED = FRAME[["c", "a", "b"]]
NAN = float("nan")


SPEC = TensorSpec("input", "float32", (3,))
MODEL = Model("m", b"", "", True, 0.0, "", "", SPEC, 0, False, (), (), 8, 0, 0, feature_names=("a", "b", "c"))


def inputs(**other: Any) -> Inputs:
    return Inputs(replace(MODEL, **other))


@pytest.mark.parametrize(
    "given", [FRAME, SWAPPED, ROWS, ROWS.tolist(), [SWAPPED.iloc[0], FRAME.iloc[1]], (SWAPPED.iloc[0], ROWS[1])]
)
def test_a_chunk(given: Any) -> None:
    assert inputs().convert(given) == (ROWS.tobytes(), False)


def test_the_rows_of_a_group() -> None:
    frame = SWAPPED.set_axis(["s", "t"], axis=0)
    named = named_rows(frame, ("a", "b", "c"))
    assert named is not None
    assert (named[0], named[1].tolist()) == (["s", "t"], ROWS.tolist())
    with pytest.raises(InvalidArgument, match="missing: 'd'; unknown: 'c'"):
        named_rows(frame, ("a", "b", "d"))


@pytest.mark.parametrize("row", [SWAPPED, [SWAPPED.iloc[0], FRAME.iloc[1]], (SWAPPED.iloc[0], ROWS[1]), ROWS], ids=type)
def test_each_row_of_a_group(row: Any) -> None:
    rows = GroupInputs(MODEL)
    assert rows.convert(["s", "t"], [row, SWAPPED]) == (2 * ROWS.tobytes(), False)
    assert rows.convert(["s", "t"], (SWAPPED.iloc[0], FRAME.iloc[1])) == (ROWS.tobytes(), True)
    for wrong in (FRAME[["a", "b"]], [SWAPPED.iloc[0], FRAME[["a", "b"]].iloc[1]]):
        with pytest.raises(InvalidArgument, match=r"row 1 \(session 't'\): got other columns \(missing: 'c'\)"):
            rows.convert(["s", "t"], [row, wrong])


def test_one_time_step() -> None:
    assert inputs().convert(SWAPPED.iloc[1]) == (ROWS[1].tobytes(), True)


@pytest.mark.parametrize(
    ("given", "came"),
    [
        (FRAME.rename(columns={"a": "d"}), "missing: 'a'; unknown: 'd'"),
        (FRAME[["a", "b"]], "missing: 'c'"),
        (FRAME[["a", "b", "b", "c"]], "more than once: 'b'"),
        (FRAME.assign(d=1), "unknown: 'd'"),
        (FRAME.set_axis([0, 1, 2], axis=1), "missing: 'a', 'b', 'c'; unknown: 0, 1, 2"),
        (pd.Series([1.0, 2.0, 3.0]), "missing: 'a', 'b', 'c'; unknown: 0, 1, 2"),
        ([FRAME.iloc[0], FRAME[["a", "b"]].iloc[1]], "missing: 'c'"),
    ],
)
def test_other_names_are_refused_and_named(given: Any, came: str) -> None:
    says = rf"inputs: got other columns \({came}\), expected 'a', 'b', 'c' in any order"
    with pytest.raises(InvalidArgument, match=says) as raised:
        inputs().convert(given)
    assert raised.value.field == "inputs"


def test_an_error_names_the_row_and_the_column() -> None:
    for given in (SWAPPED.assign(b=[1.0, None]), SWAPPED.convert_dtypes().assign(b=[1, pd.NA])):
        with pytest.raises(InvalidArgument, match=r"NaN or infinity at time step 1, feature 1 \('b'\)"):
            inputs().convert(given)
    with pytest.raises(InvalidArgument, match=r"not a number at time step 0, feature 1 \('b'\)"):
        inputs().convert(SWAPPED.assign(b=["x", "y"]))


LATER: Any = {"c": 5, "a": 3.0, "b": np.float64(4)}
FIRST: Any = {"b": 1.0, "c": 2.0, "a": 0.0}


def test_dicts_as_a_live_source_gives_them() -> None:
    assert inputs().convert(LATER) == (ROWS[1].tobytes(), True)
    assert inputs().convert([FIRST, LATER]) == (ROWS.tobytes(), False)
    assert inputs().convert({name: FRAME[name] for name in "cab"}) == (ROWS.tobytes(), False)
    assert GroupInputs(MODEL).convert(["s", "t"], [FIRST, LATER]) == (ROWS.tobytes(), True)
    missing = np.array([0.0, np.nan, 2.0], np.float32).tobytes()
    nothings: list[Any] = [None, pd.NA, np.ma.masked, NAN]
    for nothing in nothings:
        assert inputs(missing_values="hold").convert({**FIRST, "b": nothing}) == (missing, True)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"a": 1.0, "b": 2.0}, r"got other columns \(missing: 'c'\), expected 'a', 'b', 'c' in any order"),
        ([FIRST, {**FIRST, 7: 1.0}], r"got other columns \(unknown: 7\)"),
        ({}, r"got other columns \(missing: 'a', 'b', 'c'\)"),
        ({**FIRST, "b": "4.0"}, r"got dtype object: not a number at time step 0, feature 1 \('b'\)"),
        ({**FIRST, "b": [1.0, 2.0]}, r"got dict \(all input arrays must have the same shape\)"),
        ({**FIRST, "b": NAN}, r"got NaN or infinity at time step 0, feature 1 \('b'\)"),
    ],
)
def test_dicts_with_errors(given: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=f"inputs: {says}"):
        inputs().convert(given)


def test_a_dict_for_features_without_names_is_refused() -> None:
    says = r"inputs: got dict, expected \[3\] or \[T, 3\] of float32; the model's features have no names"
    with pytest.raises(InvalidArgument, match=says):
        inputs(feature_names=()).convert(FIRST)


def test_known_features_of_a_forecast() -> None:
    some = inputs(feedback=(-1, 0, -1))
    assert some.convert_known(SWAPPED[["c", "a"]], 2) == ROWS[:, [0, 2]].tobytes()
    with pytest.raises(InvalidArgument, match=r"known: got other columns \(missing: 'a'; unknown: 'b'\)"):
        some.convert_known(FRAME[["c", "b"]], 2)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundle = counting_bundle(tmp_path_factory.mktemp("names") / "count", features=3, feature_names=["a", "b", "c"])
    with ForkedServer([bundle], "memory:") as server:
        yield server.target


@pytest.mark.parametrize("chunk_steps", [1, 2])
def test_a_server_gets_the_features_in_its_order(target: str, chunk_steps: int) -> None:
    expected = [[0, 1, 2], [3, 5, 7]]
    with Client(target) as client:
        assert client.model().feature_names == ("a", "b", "c")
        session = client.session("a")
        rows = [row for _, row in SWAPPED.iterrows()]
        for samples in (SWAPPED, rows, (dict(row) for row in rows)):
            assert [y.tolist() for y in session.stream(samples, chunk_steps=chunk_steps)] == expected
            session.reset()
            assert session.step(SWAPPED).tolist() == expected
            session.reset()
        with pytest.raises(InvalidArgument, match="missing: 'c'"):
            list(session.stream(FRAME[["a", "b"]]))
        assert session.position.step == 0


def test_a_server_gets_those_of_a_group_in_its_order(target: str) -> None:
    by_id = {"s": SWAPPED.iloc[0], "t": SWAPPED.iloc[1]}
    with Client(target) as client, client.group(by_id) as group:
        for rows in (SWAPPED.set_axis([*by_id], axis=0), [*by_id.values()], [FIRST, LATER]):
            assert group.peek(rows).tolist() == ROWS.tolist()
        assert {name: y.tolist() for name, y in group.step(by_id).items()} == {"s": [0, 1, 2], "t": [3, 4, 5]}
        group.delete()


async def test_asyncio_too(target: str) -> None:
    async with AsyncClient(target) as client:
        session = await client.session("asyncio")
        assert [y.tolist() async for y in session.stream(SWAPPED, chunk_steps=2)] == [[0, 1, 2], [3, 5, 7]]
