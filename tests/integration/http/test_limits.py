"""What slow, greedy and vanished clients can cost: everything is bounded."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from select import select
from urllib.parse import urlsplit

import pytest

from testing.bundles import make_bundle
from testing.redis_server import RedisServer
from tests.integration.access.certificates import Authority

from .front import Front, RawSocket, serving, sums

BODY_BYTES = 100_000
FRAME_BYTES = 150_000
LIMITS = [
    "--max-http-body-bytes",
    str(BODY_BYTES),
    "--max-http-connections",
    "8",
    "--message-timeout-ms",
    "400",
    "--max-unread-rpcs",
    "3",
    "--max-message-bytes",
    str(FRAME_BYTES),
    "--max-request-bytes",
    "300000",
    "--max-chunk-steps",
    "5000",
    "--max-log-steps",
    "10000",
]


@pytest.fixture(scope="module")
def front(counting_model: Path) -> Iterator[Front]:
    with serving([counting_model], options=LIMITS) as made:
        yield made


@pytest.fixture(scope="module")
def patient(counting_model: Path) -> Iterator[Front]:
    """A server that waits for a message as long as it takes: otherwise some end for that reason on a busy machine."""
    with serving([counting_model], options=[*LIMITS, "--message-timeout-ms", "600000"]) as made:
        yield made


def connected(front: Front, sent: bytes = b"") -> socket.socket:
    place = urlsplit(front.url)
    made = socket.create_connection((place.hostname, place.port), 20)
    made.sendall(sent)
    return made


def head(front: Front, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", f"Host: {front.place}", *lines, "\r\n"]).encode()


def until_its_end(one: socket.socket) -> bytes:
    """Returns everything that arrives until the server closes."""
    with one:
        answer = b""
        while got := one.recv(65536):
            answer += got
        return answer


JSON_LINE = "Content-Type: application/json"


def test_a_body_that_is_too_large_is_refused(front: Front) -> None:
    session = front.session()
    fits = json.dumps({"inputs": [1]}).ljust(BODY_BYTES).encode()
    assert sums(front.ask("POST", session.path + "/step", fits).ok) == [1]
    answer = front.ask("POST", session.path + "/step", fits + b" ")
    assert answer.error["message"] == f"body: got more than {BODY_BYTES} bytes, expected at most {BODY_BYTES}"
    chunks = (fits[at : at + 9999] for at in range(0, len(fits), 9999))
    whole = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    sent = head(front, session.path + "/step", JSON_LINE, "Transfer-Encoding: chunked", "Connection: close")
    assert b" 400 " in until_its_end(connected(front, sent + whole + b"1\r\n \r\n0\r\n\r\n")).partition(b"\r\n")[0]


def test_an_answer_that_would_be_too_large_is_refused_before_anything_is_computed(front: Front) -> None:
    """A sixth of a body's limit in tensors, because JSON is several times as large."""
    session = front.session()
    at = session.step([[1]] * 4000)["position"]
    for what in ("/step", "/peek"):
        answer = session.ask("POST", what, {"inputs": [[1]] * 4500, "position": at})
        assert (answer.status, answer.error["reason"]) == (429, "REPLY_TOO_LARGE")
        assert "outputs: the reply would have 18000 bytes, expected at most 16666" in answer.error["message"]
    assert session.position() == at
    most = BODY_BYTES // 6 // 8  # inputs and outputs
    assert (
        session.ask("GET", f"/log?steps={most + 1}").error["message"] == f"steps: got {most + 1}, expected 1 to {most}"
    )
    assert len(session.ask("GET", f"/log?steps={most}").ok["inputs"]) == most


@pytest.mark.parametrize(("output", "advice"), [("state", "leave out 'state'"), ("hidden", "ask for fewer outputs")])
def test_what_no_answer_can_carry_names_the_setting(tmp_path: Path, output: str, advice: str) -> None:
    options = ["--max-http-body-bytes", "6000"]
    with serving([make_bundle(tmp_path / "m", hidden_size=256)], options=options) as front:
        asked = {"inputs": [[1, 1, 1]], "outputs": [output]}
        answer = front.ask("POST", "/v1/models/m/sessions/s/step", json.dumps(asked).encode())
        expected = f"expected at most 1000; {advice}, or raise the server's --max-http-body-bytes"
        assert answer.error["message"].endswith(expected)


def test_a_compressed_body_is_not_taken(front: Front) -> None:
    session = front.session()
    answer = front.ask("POST", session.path + "/open", b"\x1f\x8b", {"Content-Encoding": "gzip"})
    assert answer.error["message"] == "Content-Encoding: got 'gzip', expected an unencoded body"


@pytest.mark.parametrize("sent", [b"", b"POST /v1/", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_head_that_does_not_come_ends_the_connection(front: Front, sent: bytes) -> None:
    began = time.monotonic()
    until_its_end(connected(front, sent))
    assert time.monotonic() - began < 15


def test_a_body_that_does_not_come_ends_the_request(front: Front) -> None:
    path = front.session().path + "/step"
    sent = head(front, path, JSON_LINE, "Content-Length: 50") + b'{"inputs": '
    answer = until_its_end(connected(front, sent))
    assert b" 504 " in answer.partition(b"\r\n")[0]
    assert b"the call's message did not arrive within 400 ms" in answer


def test_only_so_many_bodies_are_slow_at_once(counting_model: Path) -> None:
    """Of three that wait, two may be slow. A further call takes the place of one from its own address.

    On a server that waits for a body as long as it takes: otherwise some end for that reason on a busy machine.
    """
    options = [*LIMITS, "--message-timeout-ms", "600000"]
    with serving([counting_model], options=options) as front:
        body = json.dumps({"inputs": [1]}).encode()
        lines = JSON_LINE, f"Content-Length: {len(body)}", "Connection: close"
        sent = [head(front, front.session().path + "/step", *lines) + body[:1] for _ in range(5)]
        waiting = [connected(front, one) for one in sent]
        for _ in range(3):
            (ended, *_), _, _ = select(waiting, [], [], 60)
            waiting.remove(ended)
            answer = until_its_end(ended)
            assert b" 429 " in answer.partition(b"\r\n")[0]
            assert b"calls wait for their messages" in answer or b"calls are slow to send their messages" in answer
        for one in waiting:
            one.sendall(body[1:])
            assert b" 200 " in until_its_end(one).partition(b"\r\n")[0]


def test_connections_beyond_the_most_are_told_so(counting_model: Path) -> None:
    """On a server of its own: elsewhere in this module an idle connection lasts 400 ms, which a busy machine takes."""
    with serving([counting_model], options=["--max-http-connections", "8"]) as front:
        post = head(front, "/v1/models/count/sessions/s/step", JSON_LINE, f"Content-Length: {BODY_BYTES}")
        post += bytes(BODY_BYTES)
        with ExitStack() as held:
            for _ in range(8):
                held.enter_context(connected(front, b"GET / HTTP/1.1\r\n"))
            for sent in (b"", b"", post, post, post):  # unread data is no reason to reset the connection
                assert until_its_end(connected(front, sent)).startswith(b"HTTP/1.1 503 ")
        answer = b""
        until = time.monotonic() + 15
        while b" 200 " not in answer.partition(b"\r\n")[0]:  # until the server has seen that they closed
            assert time.monotonic() < until
            get = f"GET /v1/server HTTP/1.1\r\nHost: {front.place}\r\nConnection: close\r\n\r\n"
            answer = until_its_end(connected(front, get.encode()))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The authority's certificate, and the options of a server that has one from it."""
    authority = Authority(tmp_path_factory.mktemp("tls"), "ours")
    cert, key = authority.issue("localhost")
    return authority.file, [f"--tls-cert={cert}", f"--tls-key={key}"]


def status_over_tls(front: Front, trusted: Path) -> bytes:
    place = urlsplit(front.url)
    plain = socket.create_connection((place.hostname, place.port), 20)
    with ssl.create_default_context(cafile=trusted).wrap_socket(plain, server_hostname="localhost") as one:
        one.sendall(f"GET /v1/server HTTP/1.1\r\nHost: {front.place}\r\nConnection: close\r\n\r\n".encode())
        return one.recv(12)


def test_connections_without_a_handshake_count(counting_model: Path, certificate: tuple[Path, list[str]]) -> None:
    """They take as many open files as others, which the store and the probes need."""
    trusted, options = certificate
    with serving([counting_model], options=[*options, "--max-http-connections", "4"]) as front:
        silent = [connected(front) for _ in range(4)]
        assert status_over_tls(front, trusted) == b"HTTP/1.1 503"
        for one in silent:
            one.close()
        until = time.monotonic() + 15
        while status_over_tls(front, trusted) != b"HTTP/1.1 200":  # until the server has seen that they closed
            assert time.monotonic() < until


def test_a_handshake_that_does_not_come_ends_the_connection(
    counting_model: Path, certificate: tuple[Path, list[str]]
) -> None:
    _, options = certificate
    with serving([counting_model], options=[*options, "--message-timeout-ms", "400"]) as front:
        began = time.monotonic()
        assert until_its_end(connected(front)) == b""
        assert time.monotonic() - began < 15


def test_a_message_of_a_websocket_has_the_same_bound(front: Front) -> None:
    with RawSocket(front, f"{front.session().path}/stream") as one:
        one.socket.sendall(one.frame(bytes(BODY_BYTES + 1))[:100])
        one.socket.settimeout(15)
        assert int.from_bytes(one.socket.recv(4)[2:4], "big") == 1009


@pytest.mark.parametrize(("what", "size"), [("stream", BODY_BYTES), ("frames", FRAME_BYTES)])
def test_half_sent_messages_of_all_websockets_are_bounded_as_frames_are(patient: Front, what: str, size: int) -> None:
    """Each is small enough, but together they exceed the limit. Those with the most are told so."""
    path = "/v1/frames" if what == "frames" else f"{patient.session().path}/stream"
    with ExitStack() as held:
        greedy = [held.enter_context(RawSocket(patient, path)) for _ in range(5)]
        for one in greedy:
            one.socket.sendall(one.frame(bytes(size))[:-5000])
        ended = select([one.socket for one in greedy], [], [], 15)[0]
        assert ended
        assert b"QUEUE_FULL" in ended[0].recv(4096)
        assert sums(patient.session().step([1])) == [1]


def test_a_deadline_of_the_caller_is_kept(front: Front) -> None:
    session = front.session()
    assert session.ask("POST", "/open?timeout_ms=20000", {}).status == 200
    for bad in ("0", "-1", "x", "1.5"):
        assert session.ask("GET", f"?timeout_ms={bad}").error["details"] == {"field": "timeout_ms"}


def test_a_deadline_that_passes_and_a_client_that_goes(counting_model: Path) -> None:
    """The store does not answer meanwhile. What the vanished client asked for is not applied later."""
    with RedisServer() as redis, serving([counting_model], redis.url, ["--store-timeout-ms", "20000"]) as front:
        session = front.session()
        redis.pause()
        late = session.ask("POST", "/step?timeout_ms=200", {"inputs": [1]})
        assert (late.status, late.error["reason"]) == (504, "DEADLINE_PASSED")
        body = json.dumps({"inputs": [5]}).encode()
        gone = connected(front, head(front, session.path + "/step", JSON_LINE, f"Content-Length: {len(body)}") + body)
        while front.server.metric("cellkeeper_queue_depth") == 0:
            time.sleep(0.01)  # between two checks
        gone.close()
        while front.server.metric("cellkeeper_http_requests_total", status="499") == 0:
            time.sleep(0.01)  # between two checks
        redis.wake()
        assert session.ask("GET").status == 404


def test_bytes_that_are_no_request_are_one_line_of_the_log(front: Front) -> None:
    """The line has no traceback, since nothing here failed, and not the bytes, which may contain an id."""
    for sent in (
        b"GET /v1/models/count/sessions/secret-id HTTP/9.9\r\n\r\n",
        b"GET \x01/secret-id HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01secret-id",
        head(front, "/v1/models/count/sessions/secret-id/step", "Transfer-Encoding: chunked") + b"zz\r\n",
    ):
        answer = until_its_end(connected(front, sent))
        assert b" 400 " in answer.partition(b"\r\n")[0]
    left = connected(front, head(front, "/v1/models/count/sessions/secret-id/step", JSON_LINE, "Content-Length: 9"))
    left.sendall(b"{")
    left.close()  # with its body half sent
    route = "/v1/models/{model}/sessions/{session}/step"
    while front.server.metric("cellkeeper_http_requests_total", status="499", route=route) == 0:
        time.sleep(0.01)  # between two checks
    while "refused: bytes that are not an HTTP request" not in (printed := front.server.output()):
        time.sleep(0.01)  # between two checks: what is printed arrives later than the answer
    assert "secret-id" not in printed
    assert "Traceback" not in printed
