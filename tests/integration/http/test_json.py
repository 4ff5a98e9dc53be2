"""Values through JSON and back: numbers that are not finite, integers that a double cannot represent, every float32."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.unit.engine.test_one_session_a_call import counted, counted_bundle

from .front import Front, serving, sums

BIG = 2**53


def test_every_float32_comes_back_as_it_was(front: Front) -> None:
    """A state may be any finite float32: set and read over JSON, it keeps its bits."""
    draw = np.random.default_rng(7)
    bits = draw.integers(0, 2**32, 64, dtype=np.uint32)
    values = bits.view(np.float32)
    values = np.where(np.isfinite(values), values, np.float32(0.1))
    largest, smallest = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
    values[:6] = [0.1, largest, smallest, 1e-45, -0.0, 16777216.0]
    states = {
        "h": {"dtype": "float32", "shape": [2, 8], "data": values[:16].reshape(2, 8).tolist()},
        "c": {"data": values[16:32].reshape(2, 8).tolist()},
    }
    session = front.session("lstm")
    generation = session.open()["generation"]
    moved = session.ask("PUT", "/state", {"generation": generation, "step": 5, "states": states}).ok
    assert moved["position"]["step"] == 5
    read = session.ask("GET", "/state").ok
    assert read["position"] == moved["position"]
    found = np.array([read["states"][name]["data"] for name in ("h", "c")], np.float64).astype("<f4")
    assert found.tobytes() == values[:32].astype("<f4").tobytes()


def test_a_decimal_is_the_float32_next_to_it(front: Front) -> None:
    session = front.session()
    assert sums(session.step([[0.1]])) == [struct.unpack("<f", struct.pack("<f", 0.1))[0]]


def test_not_finite_numbers_are_strings(front: Front) -> None:
    session = front.session("hold")
    session.step([[1, 2]])
    held = session.step([["NaN", 3], [4, "NaN"]])
    assert held["outputs"]["prediction"] == [[2.0, 5.0], [6.0, 8.0]]
    log = session.ask("GET", "/log").ok
    assert log["inputs"] == [["NaN", 3.0], [4.0, "NaN"]]  # a checkpoint precedes each chunk
    assert log["outputs"] == held["outputs"]
    for name in ("Infinity", "-Infinity"):
        error = session.ask("POST", "/step", {"inputs": [[1, name]]}).error
        assert error["reason"] == "NON_FINITE_INPUT"
        assert "feature 1" in error["message"]
    assert front.session().ask("POST", "/step", {"inputs": ["NaN"]}).error["reason"] == "NON_FINITE_INPUT"


@pytest.mark.parametrize("step", [BIG - 1, BIG, BIG + 1, 2**62 - 1])
def test_integers_beyond_2_to_the_53_are_strings_and_taken_as_both(front: Front, step: int) -> None:
    session = front.session()
    generation = session.open()["generation"]
    states = {"h": {"data": [[3]]}}
    body = {"generation": generation, "step": str(step), "states": states}
    at = session.ask("PUT", "/state", body).ok["position"]
    assert at["step"] == (step if step <= BIG else str(step))
    later = session.step([4], position=at)
    assert sums(later) == [7]
    assert int(later["position"]["step"]) == step + 1
    log = session.ask("GET", "/log").ok
    assert (log["first_step"], log["checkpoint_step"], log["position"]) == (at["step"], at["step"], later["position"])
    again = session.step([4], position={**at, "step": step})  # the number itself: json.dumps writes every digit
    assert again["replayed"]
    error = session.ask("POST", "/step", {"inputs": [4], "position": {**at, "step": step + 5}}).error
    assert error["reason"] == "STEP_GAP"
    assert error["details"]["position"] == later["position"]


def test_token_ids_are_whole_numbers(front: Front) -> None:
    session = front.session("tokens")
    one = session.step(3)
    assert len(one["outputs"]["prediction"]) == 1
    assert len(session.step([1, "2", 9])["outputs"]["prediction"]) == 3
    for value, text in [
        (1.0, "got 1.0"),
        ("x", "got 'x'"),
        (True, "got true"),
        (2**64, "beyond int64"),
        (None, "null"),
    ]:
        error = session.ask("POST", "/step", {"inputs": [1, value]}).error
        assert (error["reason"], error["details"]) == ("INVALID_FIELD", {"field": "inputs"})
        assert text in error["message"]
    assert "ids below 10" in session.ask("POST", "/step", {"inputs": [10]}).error["message"]


def test_states_of_every_dtype_come_back_as_they_were(tmp_path: Path) -> None:
    """int64 to the last digit, and float64, float16, int32."""
    counted_bundle(tmp_path / "m", counted())
    with serving([tmp_path / "m"]) as front:
        session = front.session("m")
        session.step([[0.1, 2]])
        before = session.ask("GET", "/state").ok
        dtypes = [one["dtype"] for one in before["states"].values()]
        assert dtypes == ["int64", "int32", "float64", "float16", "float32"]
        generation = before["position"]["generation"]
        for value in (BIG, BIG + 1, -BIG - 1, 2**63 - 1, -(2**63)):
            states = {**before["states"], "count": {"dtype": "int64", "shape": [], "data": value}}
            moved = session.ask("PUT", "/state", {"generation": generation, "step": 0, "states": states}).ok
            read = session.ask("GET", "/state").ok["states"]
            shown = value if abs(value) <= BIG else str(value)
            assert read == {**states, "count": {"dtype": "int64", "shape": [], "data": shown}}
            generation = moved["position"]["generation"]
            again = {"generation": generation, "step": 0, "states": read}
            generation = session.ask("PUT", "/state", again).ok["position"]["generation"]
            assert session.ask("GET", "/state").ok["states"] == read
        half = next(name for name, one in before["states"].items() if one["dtype"] == "float16")
        for name, data, text in [
            ("count", 2**63, "a number beyond int64"),
            ("ring", [2**31, 0], "a number beyond int32"),
            (half, np.full(before["states"][half]["shape"], 65520).tolist(), "a number beyond float16"),
            ("ring", [1], "ring'].shape: got [2], expected [1], the shape of the data"),
        ]:
            states = {**before["states"], name: {**before["states"][name], "data": data}}
            body = {"generation": generation, "step": 0, "states": states}
            assert text in session.ask("PUT", "/state", body).error["message"]
