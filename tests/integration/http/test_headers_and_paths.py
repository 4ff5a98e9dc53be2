"""What may be wrong with a request before its body is looked at: its bytes, path, headers, and WebSocket handshake.

Each is refused as JSON that names what is wrong, with the headers that every answer has. Nothing is guessed: a path
that is not well-formed names no session.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from .front import HANDSHAKE, JSON, TIMEOUT_S, Answer, Front, serving

BODY = b'{"inputs": [1]}'
STEP = "/v1/models/count/sessions/plain/step"


@pytest.fixture(scope="module")
def front(counting_model: Path) -> Iterator[Front]:
    with serving([counting_model]) as made:
        yield made


def answers(front: Front, sent: bytes) -> bytes:
    """Returns everything that the server sends until it closes the connection."""
    place = urlsplit(front.url)
    with socket.create_connection((place.hostname, place.port), TIMEOUT_S) as one:
        one.sendall(sent)
        answer = b""
        while got := one.recv(65536):
            answer += got
        return answer


def sent(front: Front, line: str, *headers: str, body: bytes = b"") -> Answer:
    """Sends a request exactly as it is written here, and returns its answer."""
    lines = [f"{line} HTTP/1.1", f"Host: {front.place}", "Connection: close", *headers, "\r\n"]
    return parsed(answers(front, "\r\n".join(lines).encode("latin-1") + body))


def parsed(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    line, _, headers = head.partition(b"\r\n")
    return Answer(int(line.split()[1]), body, dict(BytesParser().parsebytes(headers)))


def written(headers: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


def sessions(front: Front) -> set[str]:
    return {one["session"] for one in front.ask("GET", "/v1/models/count/sessions").ok["sessions"]}


@pytest.mark.parametrize(
    ("path", "field", "text"),
    [
        ("/v1/models/count/sessions/%zz/open", "session", "session: got '%zz', expected percent-encoded UTF-8"),
        ("/v1/models/count/sessions/50%/open", "session", "session: got '50%', expected percent-encoded UTF-8"),
        ("/v1/models/count/sessions/a%2/open", "session", "session: got 'a%2', expected percent-encoded UTF-8"),
        ("/v1/models/cou%nt/sessions/a/open", "model", "model: got 'cou%nt', expected percent-encoded UTF-8"),
        ("/v1/models/count/sessions/a/open#b", "path", "path: got a #, expected %23 for a # within an id"),
        ("/v1/models/count/sessions/a/open#", "path", "path: got a #, expected %23 for a # within an id"),
    ],
)
def test_a_path_that_is_not_well_formed_names_no_session(front: Front, path: str, field: str, text: str) -> None:
    """Otherwise two paths would name one session, or one path another session than was meant."""
    before = sessions(front)
    answer = sent(front, f"POST {path}", *written(JSON), "Content-Length: 2", body=b"{}")
    assert (answer.status, answer.error["message"]) == (400, text)
    assert answer.error["details"] == {"field": field}
    assert sessions(front) == before


def test_neither_does_a_query(front: Front) -> None:
    answer = sent(front, "GET /v1/models/count/sessions?prefix=50%")
    assert answer.error["message"] == "query: got a % without two hexadecimal digits, expected percent-encoded UTF-8"
    answer = sent(front, "GET /v1/models/count/sessions?prefix=a#b")
    assert answer.error["details"] == {"field": "path"}


@pytest.mark.parametrize(
    ("headers", "field", "text"),
    [
        ({"Content-Type": "application/json; charset=latin-1"}, "Content-Type", "expected application/json, in UTF-8"),
        ({**JSON, "Transfer-Encoding": "gzip, chunked"}, "Transfer-Encoding", "got 'gzip, chunked', expected chunked"),
        ({**JSON, "Expect": "200-maybe"}, "Expect", "got '200-maybe', expected 100-continue"),
    ],
    ids=["charset", "coding", "expectation"],
)
def test_a_header_that_is_not_understood_is_named(front: Front, headers: dict[str, str], field: str, text: str) -> None:
    chunked = "Transfer-Encoding" in headers
    body = b"f\r\n" + BODY + b"\r\n0\r\n\r\n" if chunked else BODY
    length = [] if chunked else [f"Content-Length: {len(BODY)}"]
    answer = sent(front, f"POST {STEP}", *written(headers), *length, body=body)
    assert (answer.status, answer.error["details"]) == (400, {"field": field})
    assert text in answer.error["message"]
    assert front.ask("GET", STEP.removesuffix("/step")).status == 404  # nothing was applied


@pytest.mark.parametrize("line", ["GET /nowhere", "PATCH /v1/models", "GET /v1/models"])
def test_so_is_an_expectation_before_anything_else(front: Front, line: str) -> None:
    answer = sent(front, line, "Expect: 200-maybe")
    assert (answer.status, answer.error["details"]) == (400, {"field": "Expect"})
    assert "Content-Security-Policy" in answer.headers


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"'])
def test_a_body_may_say_that_it_is_utf_8(front: Front, charset: str) -> None:
    kind = f"Content-Type: application/json; charset={charset}"
    path = front.session().path
    assert sent(front, f"POST {path}/step", kind, f"Content-Length: {len(BODY)}", body=BODY).ok["created"]


def test_a_client_that_waits_for_it_is_told_to_continue(front: Front) -> None:
    path = front.session().path
    lines = [f"POST {path}/step HTTP/1.1", f"Host: {front.place}", "Connection: close", *written(JSON)]
    lines += [f"Content-Length: {len(BODY)}", "Expect: 100-continue", "\r\n"]
    first, _, rest = answers(front, "\r\n".join(lines).encode() + BODY).partition(b"\r\n\r\n")
    assert first == b"HTTP/1.1 100 Continue"
    assert parsed(rest).ok["created"]


@pytest.mark.parametrize(
    ("request_bytes", "text"),
    [
        (b"GET / HTTP/9.9\r\n\r\n", "request: got bytes that are not HTTP (Bad status line), expected an HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "request: got bytes that are not HTTP"),
        (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "(Duplicate 'Host' header found)"),
        (b"GET /v1/models/count/sessions/\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", "(Invalid char in url path)"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", "(Got more than 8190 bytes"),
    ],
    ids=["version", "tls", "hosts", "bytes", "long"],
)
def test_bytes_that_are_not_a_request_are_refused_as_any_request(front: Front, request_bytes: bytes, text: str) -> None:
    answer = parsed(answers(front, request_bytes))
    assert (answer.status, answer.error["reason"]) == (400, "INVALID_FIELD")
    assert text in answer.error["message"]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Server"] == "cellkeeper"
    usual = front.ask("GET", "/v1/models").headers
    for name in usual.keys() - {"Content-Type", "Content-Length", "Date"}:
        assert answer.headers[name] == usual[name]


@pytest.mark.parametrize(
    ("header", "value", "text"),
    [
        ("Upgrade", "h2c", "Upgrade: got 'h2c', expected a WebSocket handshake"),
        ("Connection", "close", "Connection: got 'close', expected Upgrade"),
        ("Sec-WebSocket-Version", "12", "Sec-WebSocket-Version: got '12', expected 13"),
        ("Sec-WebSocket-Key", "short", "Sec-WebSocket-Key: got 'short', expected 16 bytes in base64"),
    ],
)
def test_what_is_wrong_with_a_handshake_is_named(front: Front, header: str, value: str, text: str) -> None:
    path = front.session().path
    answer = front.ask("GET", f"{path}/watch", headers={**HANDSHAKE, header: value})
    assert (answer.status, answer.error["message"]) == (400, text)


def test_a_token_in_a_header_of_its_own_is_not_in_the_log(front: Front) -> None:
    """The protocols of a WebSocket may come in several headers, of which aiohttp reads one, and logs it."""
    secret = "cellkeeper.bearer.c2VjcmV0"
    lines = ["GET /v1/frames HTTP/1.1", f"Host: {front.place}", *written(HANDSHAKE)]
    lines += [f"Sec-WebSocket-Protocol: {secret}", "Sec-WebSocket-Protocol: cellkeeper.v1", "\r\n"]
    place = urlsplit(front.url)
    with socket.create_connection((place.hostname, place.port), TIMEOUT_S) as one:
        one.sendall("\r\n".join(lines).encode())
        answer = one.recv(65536)
    assert b"Sec-WebSocket-Protocol: got 2 headers, expected one with all protocols, separated by commas" in answer
    assert secret.encode() not in answer
    assert front.ask("GET", "/v1/server").status == 200
    assert "c2VjcmV0" not in front.server.output()


def test_a_file_of_the_console_is_sent_again_only_if_it_has_changed(front: Front) -> None:
    tag = front.ask("GET", "/console/").headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', f'"other",W/{tag}', "*"):
        answer = front.ask("GET", "/console/", headers={"If-None-Match": known})
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    for other in ('"other"', tag.strip('"'), '"', ""):
        assert front.ask("GET", "/console/", headers={"If-None-Match": other}).status == 200


async def test_a_stream_takes_nothing_from_its_query(front: Front) -> None:
    url = f"{front.url}{front.session().path}/stream?hz=1"
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as one:
        error = (await one.receive_json(timeout=TIMEOUT_S))["error"]
    assert error["message"] == "query: got 'hz', expected none"


def test_neither_do_frames(front: Front) -> None:
    answer = front.ask("GET", "/v1/frames?x=1", headers=HANDSHAKE)
    assert (answer.status, answer.error["message"]) == (400, "query: got 'x', expected none")


@pytest.mark.parametrize("path", ["/", "/v1/openapi.json", "/v1/models", "/v1/models/count", "/v1/models/unknown"])
def test_head_is_answered_as_get_without_the_body(front: Front, path: str) -> None:
    got = front.ask("GET", path)
    head = sent(front, f"HEAD {path}")
    assert (head.status, head.body) == (got.status, b"")
    for name in ("Content-Type", "Content-Length", "Cache-Control", "X-Content-Type-Options"):
        assert head.headers[name] == got.headers[name], name
