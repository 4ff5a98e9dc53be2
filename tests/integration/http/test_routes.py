"""Every route answers as the document says and requires its right.

Another tenant's session looks as if it never existed, and a caller without a valid token is refused.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.access.command import new_token, token_line
from cellkeeper_service.access.rights import NEEDS, Right
from cellkeeper_service.rpc.http.openapi import document
from google.protobuf.json_format import MessageToDict
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from .examples import BODIES, CHUNK, MESSAGES, MODEL, PUBLIC, path_of, query_of
from .front import HANDSHAKE, TIMEOUT_S, Front, closing, protocols, serving

DOCUMENT: dict[str, Any] = json.loads(document("1"))
OPERATIONS = {
    (method.upper(), path): operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
ROUTES = [key for key in OPERATIONS if key not in PUBLIC]
EVERY_RIGHT = ",".join(right.value for right in Right)
TENANTS = {
    "a": ("a", EVERY_RIGHT, ""),
    "b": ("b", EVERY_RIGHT, ""),
    **{f"b-{right.value}": ("b", right.value, "") for right in Right},
    "expired": ("b", EVERY_RIGHT, "2020-01-01T00:00:00Z"),
    "c": ("c", EVERY_RIGHT, ""),
    "d": ("d", EVERY_RIGHT, ""),
}
QUOTAS = ["quota tenant=c steps_per_second=5 inflight=1", "quota tenant=d steps_per_second=1"]


@pytest.fixture(scope="module")
def tokens() -> dict[str, str]:
    return {name: new_token() for name in TENANTS}


@pytest.fixture(scope="module")
def front(lstm_model: Path, tokens: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    lines = [token_line(tokens[name], *entry) for name, entry in TENANTS.items()]
    file.write_text("\n".join([*lines, *QUOTAS]))
    with serving([lstm_model], options=["--tokens", str(file), "--log-level", "debug"]) as made:
        yield made


@pytest.fixture
def theirs(front: Front, tokens: dict[str, str]) -> tuple[str, Any]:
    """A session of tenant a after two steps, and its position."""
    session = front.of(tokens["a"]).session(MODEL)
    return session.name, session.step(CHUNK)["position"]


def outcome(front: Front, route: tuple[str, str], session: str, at: Any) -> tuple[int, Any]:
    """Returns the status and the JSON; for a WebSocket, those of its first message."""
    method, template = route
    if template in MESSAGES:
        return asyncio.run(_first_message(front, path_of(template, session, at), MESSAGES[template](session, at)))
    path = path_of(template, session, at) + query_of(method, at)
    answer = front.ask(method, path, BODIES[route](session, at))
    return answer.status, answer.json


async def _first_message(front: Front, path: str, message: Any) -> tuple[int, Any]:
    offered = protocols(front.token) if front.token else []
    try:
        async with aiohttp.ClientSession() as http, http.ws_connect(front.url + path, protocols=offered) as socket:
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            elif message is not None:
                await socket.send_json(message)
            first = await socket.receive(timeout=TIMEOUT_S)
    except aiohttp.WSServerHandshakeError:  # it does not contain the answer
        answer = front.ask("GET", path, headers=HANDSHAKE)
        return answer.status, answer.json
    if first.type is aiohttp.WSMsgType.BINARY:
        reply = pb.StepFrameReply.FromString(first.data)
        return 400 if reply.errors else 200, MessageToDict(reply)
    found = json.loads(first.data)
    if "error" not in found:
        return 200, found
    refusals = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}
    return refusals.get(found["error"]["code"], 400), found


def test_the_document_is_one_and_everybody_may_read_it(front: Front) -> None:
    served = front.ask("GET", "/v1/openapi.json").ok
    validate(served)
    assert served["paths"] == DOCUMENT["paths"]


def test_every_route_has_an_example_here_and_a_right() -> None:
    examples = {*BODIES, *(("GET", path) for path in MESSAGES), *PUBLIC}
    assert examples == set(OPERATIONS)
    assert {OPERATIONS[route]["x-rpc"] for route in ROUTES} <= set(NEEDS)


def fits(found: Any, name: str) -> None:
    Draft202012Validator({**DOCUMENT, "$ref": f"#/components/schemas/{name}"}).validate(found)


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_every_route_answers_as_the_document_says(
    front: Front, theirs: tuple[str, Any], tokens: dict[str, str], route: tuple[str, str]
) -> None:
    operation = OPERATIONS[route]
    session, at = theirs
    body = BODIES.get(route, MESSAGES.get(route[1], lambda session, at: None))(session, at)
    status, found = outcome(front.of(tokens["a"]), route, session, at)
    assert status == 200, found
    if isinstance(body, bytes):  # binary in both directions
        assert (operation["x-client-sends"], operation["x-server-sends"]) == (
            {"description": "binary: the protobuf message cellkeeper.v1.StepFrame"},
            {"description": "binary: the protobuf message cellkeeper.v1.StepFrameReply"},
        )
        return
    if "x-server-sends" in operation:
        fits(found, operation["x-server-sends"]["$ref"].rsplit("/")[-1])
    else:
        content = operation["responses"]["200"]["content"]["application/json"]
        fits(found, content["schema"]["$ref"].rsplit("/")[-1])
    asked = operation.get("x-client-sends") or (
        operation["requestBody"]["content"]["application/json"]["schema"] if "requestBody" in operation else None
    )
    assert (asked is None) == (body is None)
    if asked is not None:
        fits(body, asked["$ref"].rsplit("/")[-1])


@pytest.mark.parametrize("who", ["nobody", "unknown", "expired"])
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_without_a_good_token_nobody_is_let_in(
    front: Front, theirs: tuple[str, Any], tokens: dict[str, str], route: tuple[str, str], who: str
) -> None:
    asked = front.of({"nobody": "", "unknown": "ck_unknown"}.get(who, tokens.get(who, "")))
    status, found = outcome(asked, route, *theirs)
    assert status == 401
    assert found["error"]["reason"] == "UNAUTHENTICATED"
    assert found["error"]["message"] == "expected a valid, unexpired token in `authorization: Bearer TOKEN`"
    fits(found, "Refusal")
    assert outcome(asked, route, "never", theirs[1]) == (status, found)


@pytest.mark.parametrize("right", Right, ids=lambda right: right.value)
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_each_right_is_needed(
    front: Front, theirs: tuple[str, Any], tokens: dict[str, str], route: tuple[str, str], right: Right
) -> None:
    asked = front.of(tokens[f"b-{right.value}"])
    status, found = outcome(asked, route, *theirs)
    if right in NEEDS[OPERATIONS[route]["x-rpc"]]:
        assert status not in (401, 403)
    else:
        assert (status, found["error"]["reason"]) == (403, "PERMISSION_DENIED")
        assert outcome(asked, route, "never", theirs[1]) == (status, found)


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_anothers_session_is_as_one_that_never_existed(
    front: Front, theirs: tuple[str, Any], tokens: dict[str, str], route: tuple[str, str]
) -> None:
    (session, at), never, mine = theirs, os.urandom(16).hex(), front.of(tokens["b"])
    status, found = outcome(mine, route, session, at)
    expected_status, expected = outcome(mine, route, never, at)
    assert status == expected_status
    if route[1] not in ("/v1/server", "/v1/now"):  # they include the time
        assert json.dumps(found).replace(session, never) == json.dumps(expected)
    assert front.of(tokens["a"]).session(MODEL, session).position() == at


@pytest.mark.parametrize("what", ["/step", "/peek"])
def test_a_step_shows_the_state_only_to_those_who_may_read_it(front: Front, tokens: dict[str, str], what: str) -> None:
    session = front.of(tokens["b-step"]).session(MODEL)
    session.open()
    answer = session.ask("POST", what, {"inputs": CHUNK, "outputs": ["state"]})
    assert answer.error["reason"] == "PERMISSION_DENIED"
    assert "outputs: got 'state'" in answer.error["message"]


async def test_quotas_are_those_of_the_tenant(front: Front, tokens: dict[str, str]) -> None:
    mine = front.of(tokens["c"])
    session = mine.session(MODEL)
    session.step([[1, 2, 3]] * 20)  # used up the allowance and owes the rest
    answer = session.ask("POST", "/step", {"inputs": [1, 2, 3]})
    assert (answer.status, answer.error["reason"]) == (429, "QUOTA_EXCEEDED")
    assert answer.error["details"]["retry_delay_ms"] > 1000
    assert int(answer.headers["Retry-After"]) == -(-answer.error["details"]["retry_delay_ms"] // 1000)
    async with aiohttp.ClientSession() as http:
        url, offered = f"{front.url}{session.path}/watch", protocols(mine.token)
        async with http.ws_connect(url, protocols=offered) as first, http.ws_connect(url, protocols=offered) as second:
            assert first.protocol == "cellkeeper.v1"
            assert (await first.receive_json(timeout=TIMEOUT_S))["position"]["step"] == 20
            assert (await second.receive_json(timeout=TIMEOUT_S))["error"]["reason"] == "QUOTA_EXCEEDED"
            assert await closing(second) == (1013, "QUOTA_EXCEEDED")


async def test_a_watch_without_outputs_is_charged_nothing(front: Front, tokens: dict[str, str]) -> None:
    """Nothing is computed for it."""
    mine = front.of(tokens["d"])
    session = mine.session(MODEL)
    session.step([[1, 2, 3]] * 20)  # owes nineteen, which takes as many seconds
    url = f"{front.url}{session.path}/watch?outputs=&states=false"
    async with aiohttp.ClientSession() as http:
        for _ in range(2):
            async with http.ws_connect(url, protocols=protocols(mine.token)) as socket:
                assert len((await socket.receive_json(timeout=TIMEOUT_S))["inputs"]) == 20
        async with http.ws_connect(
            url.replace("outputs=", "outputs=prediction"), protocols=protocols(mine.token)
        ) as one:
            assert (await one.receive_json(timeout=TIMEOUT_S))["error"]["reason"] == "QUOTA_EXCEEDED"


@pytest.mark.parametrize("added", ["!", "%", ".", "*"])
async def test_a_token_among_subprotocols_has_no_other_characters(
    front: Front, tokens: dict[str, str], added: str
) -> None:
    ours, token = protocols(tokens["b"])
    async with aiohttp.ClientSession() as http:
        url = f"{front.url}{front.session(MODEL).path}/watch"
        async with http.ws_connect(url, protocols=[ours, f"{token[:30]}{added * 4}{token[30:]}"]) as socket:
            assert (await socket.receive_json(timeout=TIMEOUT_S))["error"]["reason"] == "UNAUTHENTICATED"


def test_no_session_and_no_token_is_in_the_log(front: Front, theirs: tuple[str, Any], tokens: dict[str, str]) -> None:
    """Not even at the level debug."""
    session, at = theirs
    for token in (tokens["a"], tokens["b"], ""):
        for route in ROUTES:
            outcome(front.of(token), route, session, at)
    printed = front.server.output()
    assert "refused" in printed
    assert session not in printed
    assert not any(token in printed for token in tokens.values())
    assert protocols(tokens["a"])[1] not in printed


def test_requests_are_counted_by_their_route(front: Front, theirs: tuple[str, Any], tokens: dict[str, str]) -> None:
    session, _ = theirs
    front.of(tokens["a"]).session(MODEL, session).position()
    route = "/v1/models/{model}/sessions/{session}"
    assert front.server.metric("cellkeeper_http_requests_total", route=route, status="200", method="GET") >= 1
    assert front.server.metric("cellkeeper_http_request_seconds_count", route=route) >= 1
    front.ask("GET", f"/{session}")
    metrics = front.server.metrics()
    assert session not in metrics
    assert front.server.metric("cellkeeper_http_requests_total", route="unknown", status="404") >= 1
