"""A mask, None and NA reach a real server as missing values by every kind of call, never as the fill value below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cellkeeper import AsyncClient, Client, InvalidArgument

from testing.bundles import counting_bundle, token_bundle
from testing.forked_server import ForkedServer

MASKED = np.ma.masked_array([1.0, -9999.0], [False, True])
MISSING: list[Any] = [MASKED, [1, None], np.array([1, None], object), [1, np.ma.masked], [1, float("nan")]]
IDS: list[Any] = [np.ma.masked_array([3, 4], [False, True]), [3, None], [3, np.ma.masked], [3, float("nan")]]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Models: fill (NaN is missing, and counts as 100), named (the same with names), whole (no value may be missing),
    words (ids below 10)."""
    folder = tmp_path_factory.mktemp("missing")
    filling = {"kind": "features", "missing": {"policy": "constant", "value": 100.0}}
    bundles = [
        counting_bundle(folder / "fill", name="fill", features=2, input=filling, feedback=["known", "known"]),
        counting_bundle(
            folder / "named",
            name="named",
            features=2,
            input=filling,
            feedback=["known", "known"],
            feature_names=["a", "b"],
        ),
        counting_bundle(folder / "whole", name="whole", features=2),
        token_bundle(folder, "words"),
    ]
    with ForkedServer(bundles, "memory:") as server:
        yield server.target


def test_missing_values_are_filled_by_the_models_policy(target: str) -> None:
    with Client(target) as client:
        session = client.session("a", model="fill")
        for n, x in enumerate(MISSING, 1):
            assert session.peek(x).tolist() == [n, 100 * n]
            assert session.step(x).tolist() == [n, 100 * n]
        assert session.step(np.ma.vstack([MASKED, MASKED])).tolist() == [[6, 600], [7, 700]]
        for chunk_steps in (1, 2, 3):
            session = client.session(f"b{chunk_steps}", model="fill")
            ys = [y.tolist() for y in session.stream(MISSING, chunk_steps=chunk_steps)]
            assert ys == [[n, 100 * n] for n in range(1, 6)]
        for x in MISSING:
            forecast = session.forecast([[0, 0]], steps=1, known=[x])
            assert forecast.tolist() == [[5, 500], [6, 600]]


@pytest.mark.parametrize("infinity", [float("inf"), float("-inf"), 1e39])
def test_infinity_is_no_missing_value(target: str, infinity: float) -> None:
    says = r"got infinity at time step 0, feature 1 \('b'\), expected finite values of dtype float32, or NaN"
    with Client(target) as client:
        session, group = client.session("a", model="named"), client.group(["b", "c"], model="named")
        received = client.counters.frames_sent
        for call in (session.step, session.peek, lambda x: session.forecast([[0, 0]], steps=1, known=[x])):
            with pytest.raises(InvalidArgument, match=says) as caught:
                call([float("nan"), infinity])
            assert caught.value.reason == "NON_FINITE_INPUT"
        with pytest.raises(InvalidArgument, match=rf"row 1 \(session 'c'\): {says}"):
            group.step([[0.0, 0.0], [0.0, infinity]])
        assert client.counters.frames_sent == received


def test_those_of_a_group_are_filled_too(target: str) -> None:
    masked = np.ma.vstack([MASKED, MASKED])
    frame = pd.DataFrame({"a": [1, 1], "b": [pd.NA, None]}, ["g", "h"])
    tables: list[Any] = [masked, frame, {"g": MASKED, "h": [1, None]}, *([x, MASKED] for x in MISSING)]
    with Client(target) as client, client.group(["g", "h"], model="fill") as group:
        for n, rows in enumerate(tables, 1):
            for call in (group.peek, group.step):
                ys = call(rows)
                assert [y.tolist() for y in (ys.values() if isinstance(ys, dict) else ys)] == [[n, 100 * n]] * 2
        ahead = group.forecast(np.zeros((2, 2)), steps=1, known={"g": [MASKED], "h": [MASKED]})
        assert ahead.tolist() == [[[n, 100 * n], [n + 1, 100 * n + 100]]] * 2
        group.delete()


async def test_asyncio_takes_them_alike(target: str) -> None:
    async with AsyncClient(target) as client:
        session = await client.open("async", model="fill")
        assert (await session.step(MASKED)).tolist() == [1, 100]
        assert [y.tolist() async for y in session.stream([MASKED, MASKED], chunk_steps=2)] == [[2, 200], [3, 300]]


def test_a_model_that_takes_none_refuses_them(target: str) -> None:
    place = "inputs: got NaN or infinity at time step 0, feature 1, expected finite values of dtype float32"
    of_the_stream = place.replace("got", "samples 0 to 1 of the stream: got").replace("step 0", "step 1")
    with Client(target) as client:
        session = client.session("a", model="whole")
        for x in MISSING:
            for call in (session.step, session.peek, lambda x: session.forecast(x, steps=1)):
                with pytest.raises(InvalidArgument, match=place):
                    call(x)
            with pytest.raises(InvalidArgument, match=of_the_stream):
                list(session.stream([[1, 1], x], chunk_steps=2))
        group = client.group(["g", "h"], model="whole")
        for x in MISSING:
            for rows in ([[1, 1], x], {"g": [1, 1], "h": x}):
                for call in (group.step, group.peek):
                    with pytest.raises(InvalidArgument, match=place.replace("inputs", "inputs, row 1 .session 'h'.")):
                        call(rows)
        assert [position.step for position in group.positions.values()] == [0, 0]
        with pytest.raises(InvalidArgument, match="state: got h"):
            session.set_state({"h": [MASKED]})
        with pytest.raises(InvalidArgument, match="got h"):
            client.session("c", model="whole", initial_state={"h": [MASKED]})
        assert session.position.step == session.info().position.step == 0


def test_ids_are_never_missing(target: str) -> None:
    with Client(target) as client:
        session = client.session("a", model="words")
        for ids in IDS:
            for call in (session.step, session.peek):
                with pytest.raises(InvalidArgument, match="inputs: got a missing value at time step 1, expected"):
                    call(ids)
            with pytest.raises(
                InvalidArgument, match="samples 0 to 1 of the stream: got a missing value at time step 1"
            ):
                list(session.stream(ids, chunk_steps=2))
        group = client.group(["g", "h"], model="words")
        lacking: list[Any] = [np.ma.masked_array([3, 4], [False, True]), [3, None], pd.Series([3, pd.NA], ["g", "h"])]
        for rows in lacking:
            with pytest.raises(InvalidArgument, match=r"row 1 \(session 'h'\): got None|row 1 .*: got a missing value"):
                group.step(rows)
        assert session.position.step == session.info().position.step == 0
