"""What a foreign page could make a browser do, and what every answer tells browsers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest

from .examples import SESSION
from .front import JSON, Front, serving

EVIL = "http://evil.example"
CHANGES = [("POST", f"{SESSION}/{word}") for word in ("open", "step", "peek", "forecast", "reset", "fork")] + [
    ("PUT", f"{SESSION}/state"),
    ("DELETE", SESSION),
    ("POST", "/v1/models/{model}/carry-over"),
]


@pytest.fixture(scope="module")
def front(counting_model: Path) -> Iterator[Front]:
    with serving([counting_model]) as made:
        yield made


def path(template: str) -> str:
    return template.replace("{model}", "count").replace("{session}", "s")


@pytest.mark.parametrize("route", CHANGES, ids=" ".join)
@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:1", "http://127.0.0.1"])
def test_a_page_of_somebody_else_changes_nothing(front: Front, route: tuple[str, str], origin: str) -> None:
    answer = front.ask(route[0], path(route[1]), {} if route[0] != "DELETE" else None, {"Origin": origin})
    assert (answer.status, answer.error["reason"]) == (403, "PERMISSION_DENIED")
    assert answer.error["details"] == {"field": "Origin"}
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert front.ask("GET", path(SESSION)).status == 404


@pytest.mark.parametrize("what", ["/stream", "/watch"])
async def test_a_page_of_somebody_else_opens_no_websocket(front: Front, what: str) -> None:
    async with aiohttp.ClientSession() as http:
        url = front.url + path(SESSION) + what
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url, headers={"Origin": EVIL})
        assert refused.value.status == 403
        async with http.ws_connect(url, headers={"Origin": front.url}) as socket:
            assert socket.protocol is None


def test_the_servers_own_pages_may(front: Front) -> None:
    for origin in (front.url, front.url.replace("http:", "https:")):  # TLS may end at a proxy
        assert front.ask("POST", path(SESSION) + "/open", {}, {"Origin": origin}).status == 200
    at = front.ask("GET", path(SESSION), headers={"Origin": EVIL})  # a page cannot read the answer
    assert "Access-Control-Allow-Origin" not in at.headers
    generation = at.ok["position"]["generation"]
    assert front.ask("DELETE", path(SESSION) + f"?generation={generation}", headers={"Origin": front.url}).status == 200


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_what_a_form_can_send_is_not_taken(front: Front, content_type: str) -> None:
    answer = front.ask("POST", path(SESSION) + "/open", b"{}", {"Content-Type": content_type})
    assert answer.error["message"].startswith("Content-Type: got ")
    assert front.ask("GET", path(SESSION)).status == 404


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PATCH", "HEAD"])
def test_other_methods_are_not_there(front: Front, method: str) -> None:
    answer = front.ask(method, path(SESSION) + "/open", headers={"Origin": EVIL})
    assert answer.status in (403, 405)
    assert not any(name.lower().startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("127.0.0.1:1", 200),  # through a tunnel
        ("evil.example", 403),
        ("evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost@evil.example", 403),
        ("10.0.0.1", 403),
        ("[", 403),
    ],
)
def test_without_tokens_a_name_that_somebody_made_lead_here_reads_nothing(front: Front, host: str, status: int) -> None:
    """DNS rebinding: the browser takes that page and this server for one origin."""
    port = front.place.rpartition(":")[2]
    for asked in ("/v1/models", "/", "/v1/openapi.json", "/no/such/path"):
        answer = front.ask("GET", asked, headers={"Host": host.format(port=port)})
        assert (answer.status == 403) is (status == 403), asked


def test_every_answer_has_the_headers_that_browsers_keep_to(front: Front) -> None:
    answers = [
        front.ask("GET", "/v1/models"),
        front.ask("GET", "/v1/openapi.json"),
        front.ask("GET", path(SESSION)),
        front.ask("GET", "/no/such/path"),
        front.ask("PATCH", "/v1/models"),
        front.ask("POST", path(SESSION) + "/step", b"{", JSON),
        front.ask("GET", "/v1/models", headers={"Host": "evil.example"}),
        front.ask("GET", path(SESSION) + "/watch"),
    ]
    for answer in answers:
        policy = directives(answer.headers)
        assert policy["default-src"] == ["'none'"]
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
        assert not any("unsafe" in word or "*" in word for words in policy.values() for word in words)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"] == "application/json"
        assert "Server" not in answer.headers
        assert "Set-Cookie" not in answer.headers


def directives(headers: Mapping[str, str]) -> dict[str, list[str]]:
    parts = [part.split() for part in headers["Content-Security-Policy"].split(";")]
    return {name: words for name, *words in parts}


def test_no_path_leads_out_of_the_consoles_files(front: Front) -> None:
    for asked in ("/console/../front.py", "/console/%2e%2e/front.py", "/console/..%2ffront.py", "/console//etc/passwd"):
        assert front.ask("GET", asked).status == 404


async def test_a_websocket_without_our_protocol_is_refused_and_what_was_offered_is_not_shown(front: Front) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(front.url + path(SESSION) + "/watch", protocols=["cellkeeper.bearer.c2VjcmV0"])
        assert refused.value.status == 400
    await asyncio.to_thread(front.ask, "GET", "/v1/server")
    assert "c2VjcmV0" not in front.server.output()
