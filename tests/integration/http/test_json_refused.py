"""JSON that is ambiguous, invalid, of another shape or costly to read is refused by the name of the field."""

from __future__ import annotations

import time
from typing import Any

import pytest
from cellkeeper_service.rpc.http.json_text import MAX_NESTED

from .front import Front


def raw(front: Front, body: str) -> Any:
    """Returns the refusal of a step with this text as its body."""
    return front.ask("POST", "/v1/models/count/sessions/raw/step", body.encode()).error


@pytest.mark.parametrize("depth", [900, 20_000, 60_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
@pytest.mark.parametrize("place", ["%s", '{"inputs": %s}', '{"inputs": [%s]}', '{"inputs": [1], "position": %s}'])
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "cut off"])
def test_deep_nesting_is_refused(front: Front, place: str, begin: str, end: str, depth: int, ended: bool) -> None:
    body = place % (begin * depth + ("1" + end * depth if ended else ""))
    error = raw(front, body)
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert len(error["message"]) < 500
    assert "body: got lists or objects that are nested deeper than 100" in error["message"]
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
