"""Values through JSON and back.

Numbers that are not finite, integers that a double cannot represent, every float32, ids of any characters; and JSON
that is ambiguous or invalid.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from cellkeeper_service.rpc.http.json_text import MAX_NESTED

from testing.bundles import counting_bundle, make_bundle
from tests.unit.engine.test_one_session_a_call import counted, counted_bundle

from .front import Front, serving, sums

BIG = 2**53


@pytest.fixture(scope="module")
def front(counting_model: Path, lstm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Also has "hold", for which NaN is missing, and "tokens", which takes ids below 10."""
    folder = tmp_path_factory.mktemp("bundles")
    missing = {"kind": "features", "missing": {"policy": "hold", "value": 0.0}}
    tokens = {"kind": "tokens", "vocabulary": 10, "embedding_size": 4}
    bundles = [
        counting_model,
        lstm_model,
        counting_bundle(folder / "hold", name="hold", features=2, input=missing),
        make_bundle(folder / "tokens", name="tokens", input_size=4, input=tokens),
    ]
    with serving(bundles, options=["--max-replay-steps", "1000"]) as made:
        yield made


def raw(front: Front, body: str) -> Any:
    """Returns the refusal of a step with this text as its body."""
    return front.ask("POST", "/v1/models/count/sessions/raw/step", body.encode()).error


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


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "a/b",
        "a%b",
        "%2F",
        "a b",
        "?x=1",
        "#x",
        "a;b",
        "a+b",
        "ä",
        "日本語",
        "\U0001f600",
        "\x00",
        "\x7f\r\n",
        '"\\',
        "..a",
        "e\u0301",
        "\u202e",
        "x" * 256,
        "\U0001f600" * 64,
    ],
    ids=lambda name: quote(name, safe="")[:24],
)
def test_an_id_may_have_any_characters(front: Front, name: str) -> None:
    session = front.session(name=name)
    at = session.open()
    assert sums(session.step([1], position=at)) == [1]
    found = session.ask("GET").ok
    assert (found["session"], found["position"]["step"]) == (name, 1)
    listed = front.ask("GET", f"/v1/models/count/sessions?prefix={quote(name, safe='')}").ok["sessions"]
    assert [one["session"] for one in listed] == [name]
    target = f"fork of {name}"[:50] if len(name.encode()) > 200 else f"fork of {name}"
    session.ask("POST", "/fork", {"target": target}).ok  # noqa: B018 - raises if it was refused
    assert front.session(name=target).position()["step"] == 1
    for one in (name, target):
        generation = front.session(name=one).position()["generation"]
        assert front.session(name=one).ask("DELETE", f"?generation={generation}").ok == {"deleted": True}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("%ff", "session: got '%ff', expected percent-encoded UTF-8"),
        ("%ed%a0%80", "expected percent-encoded UTF-8"),  # half of a surrogate pair
        ("x" * 257, "session: got 257 bytes, expected 1 to 256 bytes of UTF-8"),
        ("%F0%9F%98%80" * 65, "session: got 260 bytes"),
    ],
)
def test_what_is_no_id_is_refused(front: Front, path: str, text: str) -> None:
    error = front.ask("GET", f"/v1/models/count/sessions/{path}").error
    assert error["reason"] == "INVALID_FIELD"
    assert text in error["message"]


@pytest.mark.parametrize("depth", [900, 20_000, 60_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
@pytest.mark.parametrize("place", ["%s", '{"inputs": %s}', '{"inputs": [%s]}', '{"inputs": [1], "position": %s}'])
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "cut off"])
def test_deep_nesting_is_refused(front: Front, place: str, begin: str, end: str, depth: int, ended: bool) -> None:
    """How deep Python's parser goes depends on Python's version; nothing behind it follows the nesting."""
    body = place % (begin * depth + ("1" + end * depth if ended else ""))
    error = raw(front, body)
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert len(error["message"]) < 500
    if depth == 60_000 and sys.version_info < (3, 14):
        assert "body: got lists or objects that are nested too deeply" in error["message"]
    assert front.ask("GET", "/v1/models/count/sessions/raw").status == 404  # nothing was applied


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"inputs": [NaN]}', 'body: got the bare word NaN, expected the string "NaN"'),
        ('{"inputs": [-Infinity]}', "bare word -Infinity"),
        ('{"inputs": [1e999]}', "inputs: got a number beyond float64"),
        (f'{{"inputs": [{10**400}]}}', "inputs: got a number beyond float64"),
        ('{"inputs": [1e39]}', "inputs: got a number beyond float32"),
        ('{"inputs": [-3.4028236e38]}', "inputs: got a number beyond float32"),
        (f'{{"inputs": [{"9" * 5000}]}}', "body: got a number with too many digits"),
        ('{"inputs": [1], "inputs": [2]}', "body: got the key 'inputs' twice in one object, expected each key once"),
        ('{"inputs": [[1], [1, 2]]}', "inputs: got lists of different lengths or depths"),
        ('{"inputs": [[1], 2]}', "inputs: got lists of different lengths or depths"),
        ('{"inputs": [1, [2]]}', "inputs: got a list of 1"),
        ('{"inputs": [null]}', "inputs: got null, expected numbers"),
        ('{"inputs": [true]}', "inputs: got true, expected numbers"),
        ('{"inputs": ["nan"]}', "inputs: got 'nan', expected numbers"),
        ('{"inputs": {}}', "inputs: got an object, expected numbers"),
        ('{"inputs": []}', "inputs: got [T, 0], expected [T, 1]"),
        ('{"inputs": [[]]}', "inputs: got [T, 0], expected [T, 1]"),
        ('{"inputs": [[1, 2]]}', "inputs: got [T, 2], expected [T, 1]"),
        ('{"inputs": ' + "[" * 20 + "1" + "]" * 20 + "}", "inputs: got lists of different lengths or depths"),
        ('{"input": [1]}', "inputs: got nothing, expected numbers"),
        ('{"inputs": [1], "positon": {}}', "positon: got an unknown field, expected some of inputs"),
        ('{"inputs": [1], "\\ud800": 1}', "'\\ud800': got an unknown field, expected some of inputs, "),
        ('{"inputs": [1], "' + "x" * 9999 + '": 1}', "a string of 9999 characters: got an unknown field"),
        ('{"inputs": [1], "position": null}', "position: got null, expected an object"),
        (
            '{"inputs": [1], "position": {"step": 1}}',
            "position.generation: got nothing, expected 32 hexadecimal digits",
        ),
        ('{"inputs": [1], "outputs": "state"}', "outputs: got 'state', expected a list of names"),
        ('{"inputs": [1], "outputs": ["no"]}', "outputs: got 'no', expected some of hidden, prediction, state"),
        ('{"inputs": [1], "outputs": ["\\ud800"]}', "outputs[0]: got half of a surrogate pair"),
        ('{"inputs": [1], "acked": -1}', "acked: got -1, expected a whole number"),
        ('{"inputs": [1], "acked": 1.0}', "acked: got 1.0, expected a whole number"),
        ('{"inputs": [1]', "body: got text that is not JSON"),
        ("[]", "body: got a list of 0, expected an object"),
        ("", "inputs: got nothing, expected numbers"),
        ("\ufeff{}", "body: got text that is not JSON"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_not_understood_is_refused_by_its_name(front: Front, body: str, text: str) -> None:
    error = raw(front, body)
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert text in error["message"]
    assert front.ask("GET", "/v1/models/count/sessions/raw").status == 404  # nothing was applied


@pytest.mark.parametrize(("method", "what"), [("POST", "/reset"), ("PUT", "/state"), ("DELETE", "")])
def test_what_ends_a_generation_says_where_it_is_found(front: Front, method: str, what: str) -> None:
    error = front.session().ask(method, what, None if method == "DELETE" else {}).error
    wanted = "generation: got nothing, expected 32 hexadecimal digits: the generation in the session's position"
    assert error["message"].startswith(wanted)


@pytest.mark.parametrize(
    ("method", "what", "body", "text"),
    [
        (
            "POST",
            "/step",
            "{" + "".join(f'"{n}":1,' for n in range(99_000)) + '"98999":1}',
            "got the key '98999' twice",
        ),
        ("POST", "/step", "{" + "".join(f'"{n}":1,' for n in range(99_000)) + '"x":1}', "inputs: got nothing"),
        ("POST", "/step", '{"inputs":[' + "[[],[],[]]," * 16_000 + "[]]}", "lists of different lengths or depths"),
        ("POST", "/step", '{"inputs":[1],"outputs":[' + '"prediction",' * 70_000 + '"state"]}', "a list of 70001"),
        (
            "PUT",
            "/state",
            '{"generation":"'
            + "0" * 32
            + '","step":0,"states":{'
            + "".join(f'"{n}":{{"data":1}},' for n in range(50_000))
            + '"h":{"data":1}}}',
            "states: got 50001 tensors, expected each of ['h'] once",
        ),
    ],
    ids=["twice", "names", "nested", "outputs", "tensors"],
)
def test_no_body_takes_long_to_be_refused(front: Front, method: str, what: str, body: str, text: str) -> None:
    """Meanwhile all others wait. Anything quadratic in the body's size would take minutes."""
    began = time.monotonic()
    error = front.ask(method, front.session().path + what, body.encode()).error
    assert text in error["message"]
    assert time.monotonic() - began < 5


def test_bytes_that_are_no_text_are_refused(front: Front) -> None:
    error = front.ask("POST", "/v1/models/count/sessions/raw/step", b'{"inputs": [1], "\xff": 1}').error
    assert error["message"] == "body: got a byte that is not UTF-8 at 17, expected JSON in UTF-8"


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


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ("\ud800", ".shape: got '\\ud800', expected [1, 1], the shape of the data"),
        ([1], ".shape: got a list of 1, expected [1, 1], the shape of the data"),
        ([1, 2], ".shape: got [1, 2], expected [1, 1], the shape of the data"),
        ([1, "\ud800"], ".shape: got '\\ud800', expected a whole number"),
        ([1, True], ".shape: got true, expected a whole number"),
        ([1, 1.0], ".shape: got 1.0, expected a whole number"),
    ],
)
def test_a_shape_is_a_list_of_whole_numbers(front: Front, shape: Any, text: str) -> None:
    session = front.session()
    at = session.open()
    body = {"generation": at["generation"], "step": 0, "states": {"h": {"data": [[1]], "shape": shape}}}
    error = session.ask("PUT", "/state", body).error
    assert error["details"] == {"field": "states['h'].shape"}
    assert text in error["message"]
    assert session.position() == at


@pytest.mark.parametrize("one", ["[]", "{}", "[[0]]"])
def test_a_body_of_many_lists_is_refused_before_it_is_parsed(front: Front, one: str) -> None:
    """A list takes 2 bytes of a body, but far more time of the event loop that serves everybody."""
    session = front.session("lstm")
    for count, refused in ((MAX_NESTED + 2, True), (MAX_NESTED - 2, False)):
        items = ",".join([one] * (count // one.count(one[0])))
        error = session.ask("POST", "/step", f'{{"inputs":[{items}]}}'.encode()).error
        assert error["code"] in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
        assert (error["details"]["field"] == "body") is refused


@pytest.mark.parametrize(
    ("known", "came"),
    [([1, 2], "[2]"), ([[1, 2]], "[1, 2]"), ([[1], [2], [3]], "[3, 1]"), ([[[1]], [[2]]], "[2, 1, 1]"), (7, "[]")],
)
def test_what_a_forecast_is_given_has_a_row_for_each_step(front: Front, known: Any, came: str) -> None:
    """In any other shape, the same numbers would be taken for other steps or features."""
    session = front.session("lstm")
    session.open()
    body = {"inputs": [1, 2, 3], "steps": 2}
    error = session.ask("POST", "/forecast", {**body, "known": known}).error
    assert error["message"].startswith(f"known: got numbers of shape {came}, expected [2, 1]: ")
    assert error["details"] == {"field": "known"}
    assert len(session.ask("POST", "/forecast", {**body, "known": [[1], [2]]}).ok["outputs"]["prediction"]) == 3


def test_a_log_has_no_state_and_says_so(front: Front) -> None:
    session = front.session("lstm")
    session.open()
    error = session.ask("GET", "/log?outputs=prediction,state").error
    assert error["message"].startswith("outputs: got 'state'")
