"""A refusal names the field as the JSON request does, not as the message that it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .front import TIMEOUT_S, Front, serving

NO_POSITION = "position: got none, expected the item's position"
NEVER = "0" * 32
STATES = {name: {"data": [[0.0] * 8] * 2} for name in "hc"}
CHUNK = [[1, 2, 3]] * 2


@pytest.fixture(scope="module")
def front(lstm_model: Path) -> Iterator[Front]:
    with serving([lstm_model], options=["--max-chunk-steps", "8"]) as made:
        yield made


@pytest.mark.parametrize(
    ("method", "what", "body", "text"),
    [
        ("POST", "/step", {"inputs": [[1, 2]]}, "inputs: got [T, 2], expected [T, 3]"),
        ("POST", "/step", {"inputs": CHUNK * 5}, "inputs: got T = 10, expected 1 to 8 time steps"),
        ("POST", "/forecast", {"inputs": CHUNK, "steps": 7}, "steps: got 7, expected at most 6"),
        ("PUT", "/state", {"generation": NEVER, "step": 2**62, "states": STATES}, f"step: got {2**62}, expected less"),
        (
            "PUT",
            "/state",
            {"generation": NEVER, "step": 0, "states": {**STATES, "c": {"data": [[0.0] * 8]}}},
            "states[c]: got FLOAT32 [1, 8], expected FLOAT32 [2, 8]",
        ),
        (
            "PUT",
            "/state",
            {"generation": NEVER, "step": 0, "states": {"h": STATES["h"], "x": STATES["c"]}},
            "states: got tensors ['h', 'x'], expected each of ['c', 'h'] once",
        ),
        ("POST", "/reset", {"generation": NEVER, "request_id": NEVER}, "request_id: got zeros, expected"),
        ("POST", "/fork", {"target": "a", "ttl_ms": 2**63}, f"ttl_ms: got {2**63}, expected at most"),
        ("POST", "/fork", {"target": "x" * 257}, "target: got 257 bytes, expected 1 to 256 bytes"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_request(front: Front, method: str, what: str, body: Any, text: str) -> None:
    session = front.session("lstm")
    session.open()
    error = session.ask(method, what, body).error
    assert error["message"].startswith(text)
    assert error["details"] == {"field": text.partition(":")[0]}


@pytest.mark.parametrize(("method", "what", "more"), [("POST", "/reset", {}), ("PUT", "/state", {"states": STATES})])
def test_a_generation_that_has_ended(front: Front, method: str, what: str, more: Any) -> None:
    session = front.session("lstm")
    position = session.open()
    error = session.ask(method, what, {"generation": "1" * 32, **({"step": 0, **more} if more else {})}).error
    assert error["message"] == "generation: the session has another generation now, at step 0"
    assert error["details"] == {"field": "generation", "position": position}


def test_a_generation_that_has_ended_among_several_items(front: Front) -> None:
    session = front.session("lstm")
    session.open()
    item = {"session": session.name, "generation": "1" * 32, "policy": "keep"}
    (result,) = front.ask("POST", "/v1/models/lstm/carry-over", {"items": [item]}).ok["results"]
    assert result["error"]["message"].startswith("generation: the session has another generation now")


@pytest.mark.parametrize(("part", "value"), [("generation", "1" * 32), ("step", 5), ("head", "1" * 16)])
def test_a_position_that_an_open_expects(front: Front, part: str, value: Any) -> None:
    session = front.session("lstm")
    position = session.open()
    error = session.ask("POST", "/open", {"expect": {**position, part: value}}).error
    assert error["message"].startswith(f"expect.{part}: ")
    assert error["details"] == {"field": f"expect.{part}", "position": position}
    error = session.ask("POST", "/fork", {"target": "a", "position": {**position, part: value}}).error
    assert error["details"]["field"] == f"position.{part}"


def test_the_id_in_the_path(front: Front) -> None:
    long = "x" * 257
    asked: list[tuple[str, Any]] = [("/fork", {"target": "a"}), ("/reset", {"generation": NEVER}), ("/open", {})]
    for what, body in asked:
        error = front.session("lstm", long).ask("POST", what, body).error
        assert error["message"] == "session: got 257 bytes, expected 1 to 256 bytes of UTF-8"
        assert error["details"] == {"field": "session"}


def test_a_generation_that_a_delete_lacks(front: Front) -> None:
    session = front.session("lstm")
    position = session.open()
    error = session.ask("DELETE", "?generation=").error
    assert error["message"].startswith("generation: got 0 bytes")
    assert error["details"] == {"field": "generation", "position": position}


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("/step", {"inputs": CHUNK}, "shape"),
        ("/step", {"inputs": CHUNK}, "named_inputs"),
        ("/open", {}, "position"),
        ("/fork", {"target": "a"}, "source"),
        ("/reset", {"generation": NEVER}, "state"),
    ],
)
def test_an_unknown_field_keeps_its_name(front: Front, what: str, body: Any, field: str) -> None:
    """Although a message has a field of that name, which is called otherwise in JSON."""
    error = front.session("lstm").ask("POST", what, {**body, field: [1]}).error
    assert error["message"].startswith(f"{field}: got an unknown field, expected some of ")
    assert error["details"] == {"field": field}


def test_an_item_of_several(front: Front) -> None:
    item = {"session": "a", "generation": NEVER, "policy": "rerun", "inputs": [[1, 2]]}
    body = {"items": [{"session": "b", "generation": NEVER, "policy": "keep"}, item]}
    _, second = front.ask("POST", "/v1/models/lstm/carry-over", body).ok["results"]
    assert second["error"]["message"] == "items[1].inputs: got [T, 2], expected [T, 3]"
    assert second["error"]["details"] == {"field": "items[1].inputs"}


def test_the_position_of_an_item(front: Front) -> None:
    session = front.session("lstm")
    at = session.open()
    item = {"session": session.name, "generation": at["generation"], "policy": "reset", "position": at}
    (result,) = front.ask("POST", "/v1/models/lstm/carry-over", {"items": [item]}).ok["results"]
    assert (
        result["error"]["message"] == "items[0].position: got one with RESET, expected none: only KEEP takes a position"
    )
    (kept,) = front.ask("POST", "/v1/models/lstm/carry-over", {"items": [{**item, "policy": "keep"}]}).ok["results"]
    assert kept["position"] == at  # it belongs to the version already


async def test_a_message_of_a_stream(front: Front) -> None:
    session = front.session("lstm")
    at = session.open()
    asked: list[tuple[Any, str]] = [
        ({"inputs": CHUNK}, NO_POSITION),
        ({"inputs": CHUNK, "position": {**at, "step": 2**63}}, f"position.step: got {2**63}, expected less"),
        ({"inputs": CHUNK, "position": at, "acked": 5}, "acked: got 5, expected at most the position's step, 0"),
        ({"inputs": CHUNK * 5, "position": at}, "inputs: got T = 10, expected 1 to 8 time steps"),
        ({"inputs": [[1, 2]], "position": at}, "inputs: got [T, 2], expected [T, 3]"),
        ({"inputs": [["NaN", 1, 1]], "position": at}, "inputs: got nan at time step 0, feature 0"),
    ]
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{front.url}{session.path}/stream") as socket:
        for body, text in asked:
            await socket.send_json(body)
            error = (await socket.receive_json(timeout=TIMEOUT_S))["error"]
            assert error["message"].startswith(text)
            assert error["details"] == {"field": text.partition(":")[0]}
    long = front.session("lstm", "x" * 257)
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{front.url}{long.path}/stream") as socket:
        await socket.send_json({"inputs": CHUNK, "position": at})
        error = (await socket.receive_json(timeout=TIMEOUT_S))["error"]
        assert error["message"] == "session: got 257 bytes, expected 1 to 256 bytes of UTF-8"
