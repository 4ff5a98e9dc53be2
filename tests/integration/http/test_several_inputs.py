"""Models with several inputs per time step, as JSON: a chunk is an object with an array for each input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from cellkeeper import Client

from testing.bundles import counting_bundle
from testing.two_inputs import random_steps, two_inputs_bundle

from .front import TIMEOUT_S, Front, serving

CHUNK = {name: values.tolist() for name, values in random_steps(4).items()}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("bundles")
    fed = two_inputs_bundle(folder / "fed", name="fed", feedback={"audio": [2, 0, 1], "ids": "known"})
    with serving([two_inputs_bundle(folder / "two"), fed, counting_bundle(folder / "count")]) as made:
        yield made


@pytest.fixture(scope="module")
def client(front: Front) -> Iterator[Client]:
    with Client(front.server.target) as made:
        yield made


def part(first: int, last: int) -> dict[str, Any]:
    return {name: values[first:last] for name, values in CHUNK.items()}


def test_steps_and_chunks_are_those_of_the_client(front: Front, client: Client) -> None:
    session = front.session("two")
    one = session.step({name: values[0] for name, values in CHUNK.items()})  # without a time axis
    rest = session.step(part(1, 4), position=one["position"])
    expected = client.session("expected", model="two").step(random_steps(4))
    assert one["outputs"]["prediction"] + rest["outputs"]["prediction"] == expected.tolist()
    again = session.step(part(1, 4), position=one["position"])
    assert again["replayed"]
    assert again["outputs"] == rest["outputs"]
    assert session.ask("POST", "/peek", {"inputs": part(0, 1)}).ok["position"]["step"] == 5
    assert session.position() == rest["position"]


async def test_the_log_the_stream_and_the_watch_have_them_by_name(front: Front) -> None:
    session = front.session("two")
    first = session.step(part(0, 2))
    logged = session.ask("GET", "/log").ok
    assert logged["inputs"] == part(0, 2)
    assert logged["outputs"] == first["outputs"]
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(f"{front.url}{session.path}/stream") as socket:
            await socket.send_json({"inputs": part(2, 4), "position": first["position"]})
            reply = await socket.receive_json(timeout=TIMEOUT_S)
            await socket.send_json({"inputs": {**part(2, 4), "ids": [1]}, "position": reply["position"]})
            refused = await socket.receive_json(timeout=TIMEOUT_S)
        async with http.ws_connect(f"{front.url}{session.path}/watch") as socket:
            seen = await socket.receive_json(timeout=TIMEOUT_S)
    assert reply["position"]["step"] == 4
    assert refused["error"]["details"]["field"] == "inputs"
    assert seen["inputs"] == part(seen["first_step"], 4)  # as far as the log has them
    assert seen["outputs"]["prediction"][-2:] == reply["outputs"]["prediction"]


def test_a_forecast_takes_what_the_prediction_does_not_become(front: Front, client: Client) -> None:
    session, known = front.session("fed"), [1, 2, 3]
    session.open()
    body = {"inputs": part(0, 2), "steps": 3, "known": {"ids": known}}
    given = session.ask("POST", "/forecast", body).ok
    expected = client.session("forecast", model="fed").forecast(
        {name: values[:2] for name, values in random_steps(4).items()}, steps=3, known={"ids": known}
    )
    assert given["outputs"]["prediction"] == expected.tolist()
    refused = session.ask("POST", "/forecast", {**body, "known": {}})
    assert (refused.status, refused.error["details"]["field"]) == (400, "known")
    for steps, text in ((0, "known: got 0 bytes, 1 tensors, expected none: "), (2, "known[ids]: got [3], expected 2 ")):
        message = session.ask("POST", "/forecast", {**body, "steps": steps}).error["message"]
        assert message.startswith(text)
        assert "rollout" not in message  # which is what gRPC calls it


def test_a_window_of_a_carry_over_has_them_by_name(front: Front) -> None:
    session = front.session("two")
    at = session.step(part(0, 2))["position"]
    item = {"session": session.name, "generation": at["generation"], "policy": "rerun", "inputs": part(0, 2)}
    (result,) = front.ask("POST", "/v1/models/two/carry-over", {"items": [item]}).ok["results"]
    assert result["position"] == at  # it belongs to that version already
    refused = front.ask("POST", "/v1/models/two/carry-over", {"items": [{**item, "inputs": {"audio": [[1, 2, 3]]}}]})
    assert (refused.status, refused.error["details"]["field"]) == (400, "items[0].inputs")


def test_a_model_says_what_its_inputs_are(front: Front) -> None:
    models = {model["name"]: model for model in front.ask("GET", "/v1/models").ok["models"]}
    assert models["two"]["input"] is None
    assert models["two"]["inputs"] == [
        {"name": "audio", "dtype": "float32", "shape": [3], "vocabulary": 0},
        {"name": "ids", "dtype": "int64", "shape": [], "vocabulary": 5},
    ]
    assert models["fed"]["feedback"] == {"inputs": {"audio": [2, 0, 1]}}
    assert (models["count"]["inputs"], models["count"]["input"]["dtype"]) == ([], "float32")


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ([[1, 2, 3]], "inputs"),
        ({"audio": [[1, 2, 3]]}, "inputs"),
        ({**part(0, 1), "video": [1]}, "inputs"),
        ({**part(0, 1), "ids": [0.5]}, "inputs[ids]"),
        ({**part(0, 1), "ids": [5]}, "inputs[ids]"),
        ({**part(0, 1), "audio": [[1, 2]]}, "inputs[audio]"),
        ({**part(0, 2), "ids": [1]}, "inputs[ids]"),
        ({**part(0, 1), "audio": [["NaN", 0, 0]]}, "inputs[audio]"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_name(front: Front, inputs: Any, field: str) -> None:
    session = front.session("two")
    answer = session.ask("POST", "/step", {"inputs": inputs})
    assert (answer.status, answer.error["details"]["field"]) == (400, field)
    assert session.ask("GET").status == 404  # nothing of it was applied


def test_one_input_is_no_object(front: Front) -> None:
    answer = front.session("count").ask("POST", "/step", {"inputs": {"x": [[1]]}})
    assert (answer.status, answer.error["details"]["field"]) == (400, "inputs")
