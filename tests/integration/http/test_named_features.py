"""Features by name, and null for a missing value, as a sensor's JSON has them."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from .front import TIMEOUT_S, Front

ROWS = [{"flow": 1, "load": 2}, {"load": 4, "flow": 3}]
COLUMNS = {"load": [2, 4], "flow": [1, 3]}
PLAIN = [[1, 2], [3, 4]]


@pytest.mark.parametrize("chunk", [ROWS, COLUMNS], ids=["rows", "columns"])
async def test_a_chunk_by_name_is_the_chunk_in_the_order_of_the_features(named: Front, chunk: Any) -> None:
    session = named.session("pump")
    start = session.open()
    first = session.step(chunk, position=start)
    assert first["outputs"]["prediction"] == [[1.0, 2.0], [4.0, 6.0]]
    assert session.step(PLAIN, position=start)["replayed"]  # the same inputs
    assert session.ask("GET", "/log").ok["inputs"] == PLAIN
    assert session.ask("POST", "/peek", {"inputs": chunk}).ok["outputs"]["prediction"] == [[5.0, 8.0], [8.0, 12.0]]
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{named.url}{session.path}/stream") as socket,
    ):
        await socket.send_json({"inputs": chunk, "position": first["position"]})
        reply = await socket.receive_json(timeout=TIMEOUT_S)
        assert reply["outputs"]["prediction"] == [[5.0, 8.0], [8.0, 12.0]]


def test_one_time_step_by_name(named: Front) -> None:
    session = named.session("pump")
    assert session.step({"load": 2, "flow": 1})["outputs"]["prediction"] == [[1.0, 2.0]]
    assert session.step([{"load": 2, "flow": 1}])["outputs"]["prediction"] == [[2.0, 4.0]]


def test_what_a_forecast_knows_by_name(named: Front) -> None:
    session = named.session("pump")
    session.step([1, 2])
    asked: dict[str, Any] = {"inputs": {"flow": 1, "load": 1}, "steps": 2}
    plain = session.ask("POST", "/forecast", {**asked, "known": [[5], [7]]}).ok["outputs"]
    for known in ({"load": [5, 7]}, [{"load": 5}, {"load": 7}]):
        assert session.ask("POST", "/forecast", {**asked, "known": known}).ok["outputs"] == plain
    error = session.ask("POST", "/forecast", {**asked, "known": {"flow": [5, 7]}}).error
    assert "known: got an object without 'load' and with 'flow', expected an object with each of 'load'" in str(error)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"flow": 1}, "inputs: got an object without 'load', expected an object with each of 'flow', 'load'"),
        ({"flow": 1, "load": 2, "x": 3}, "inputs: got an object with 'x', expected"),
        ({}, "inputs: got an object without 'flow', 'load', expected"),
        ([{"flow": 1, "load": 2}, {"flow": 1}], "inputs[1]: got an object without 'load', expected"),
        ([{"flow": 1, "load": 2}, [1, 2]], "inputs[1]: got a list of 2, expected an object"),
        ([[1, 2], {"flow": 1, "load": 2}], "inputs: got lists of different lengths or depths"),
        ({"flow": [1, 2], "load": [1]}, "inputs: got a different number of time steps for each feature"),
        ({"flow": [1], "load": 1}, "inputs: got a different number of time steps for each feature"),
        ({"flow": [], "load": []}, "inputs: got [T, 0], expected [T, 2]"),
        ({"flow": [[1]], "load": [[1]]}, "inputs: got [T, 2, 1], expected [T, 2]"),
        ({"flow": {}, "load": 1}, "inputs: got an object, expected numbers"),
        ({"flow": None, "load": 1}, "inputs: got null, expected numbers; only inputs of a model that accepts missing"),
    ],
    ids=str,
)
def test_other_names_and_shapes_are_refused(named: Front, inputs: Any, text: str) -> None:
    session = named.session("pump")
    error = session.ask("POST", "/step", {"inputs": inputs}).error
    assert error["reason"] == "INVALID_FIELD"
    assert text in error["message"]
    assert session.ask("GET").status == 404  # nothing was applied


async def test_null_is_a_missing_value(named: Front) -> None:
    session = named.session("gaps")
    start = session.open()
    reply = session.step([[1, 2], [None, 3], [4, None]], position=start)
    assert reply["outputs"]["prediction"] == [[1.0, 2.0], [2.0, 5.0], [6.0, 8.0]]
    same = session.step([[1, 2], ["NaN", 3], [4, "NaN"]], position=start)
    assert same["replayed"]
    assert session.step({"flow": None, "load": 1})["outputs"]["prediction"] == [[10.0, 9.0]]
    known = {"inputs": [None, 1], "steps": 2, "known": [{"load": None}, {"load": 1}]}
    assert len(session.ask("POST", "/forecast", known).ok["outputs"]["prediction"]) == 3
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{named.url}{session.path}/stream") as socket,
    ):
        await socket.send_json({"inputs": [None, None], "position": session.position()})
        reply = await socket.receive_json(timeout=TIMEOUT_S)
        assert reply["outputs"]["prediction"] == [[14.0, 10.0]]
    error = session.ask("POST", "/step", {"inputs": [None, "nan"]}).error
    assert "inputs: got 'nan', expected numbers, or null or \"NaN\" for a missing value" in error["message"]


@pytest.mark.parametrize("data", [[[None, 1]], None])
def test_a_state_has_no_missing_values(named: Front, data: Any) -> None:
    session = named.session("gaps")
    generation = session.open()["generation"]
    states = session.ask("GET", "/state").ok["states"]
    states["h"]["data"] = data
    error = session.ask("PUT", "/state", {"generation": generation, "step": 0, "states": states}).error
    assert "states['h'].data: got null, expected numbers" in error["message"]
