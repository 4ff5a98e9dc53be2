"""`cellkeeper doctor` on real servers: healthy ones, and each problem that it should find."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cellkeeper import Client
from cellkeeper.doctor.metrics import Scrape, check_scrapes

from testing.bundles import make_bundle
from testing.forked_program import run_forked
from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer
from tests.integration.access.tenants import entry

SHORT = ["--timeout", "5"]


def doctor(*words: str, code: int) -> list[str]:
    """Returns the printed lines."""
    done = run_forked("cellkeeper", ["doctor", *words], os.environ, 100)
    assert (done.status, done.err) == (code, ""), done.out + done.err
    return done.out.splitlines()


def levels(lines: Sequence[str]) -> set[str]:
    return {line.split()[0] for line in lines}


def only(lines: Sequence[str], level: str) -> str:
    (line,) = [line for line in lines if line.startswith(level)]
    return line


def test_a_healthy_deployment(counting_model: Path, tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 's.db'}"
    with ForkedServer([counting_model], url) as one, ForkedServer([counting_model], url) as two:
        lines = doctor(one.target, two.target, "--metrics", one.metrics_url, two.metrics_url, code=0)
        with Client(one.target) as client:
            assert list(client.sessions("cellkeeper-doctor/")) == []  # nothing is left
    assert levels(lines) == {"ok"}
    text = "\n".join(lines)
    for expected in (
        f"{one.target} reach: in ",
        f"{two.target} health: SERVING",
        f"{one.target} TLS: none, on a local address",
        f"{one.target} auth: none, on a local address",
        f"{two.target} model: count ",
        "model: the same versions and numerics on every endpoint",
        f"{two.target} step: count: 8 steps of a scratch session, median ",
        "step: count: the same bits on every endpoint",
        "store: count: one session, stepped on every endpoint in turn",
        f"{one.metrics_url} store: sqlite, synchronous full",
        f"{one.metrics_url} store: a commit takes ",
        f"{two.metrics_url} clock: agrees with this machine's",
    ):
        assert expected in text


def test_a_deployment_with_tokens(counting_model: Path, tmp_path: Path) -> None:
    """The token is required, and sufficient for everything that the doctor does."""
    token, line = entry("a", "step,read,admin")
    (tmp_path / "tokens").write_text(line)
    (tmp_path / "mine").write_text(f"{token}\n")
    with ForkedServer([counting_model], "memory:", ["--tokens", str(tmp_path / "tokens")]) as server:
        lines = doctor(server.target, "--token-file", str(tmp_path / "mine"), code=0)
        assert any(f"{server.target} auth: refuses calls without a token" in line for line in lines)
        assert any("step: count: 8 steps of a scratch session" in line for line in lines)
        lines = doctor(server.target, *SHORT, code=1)
    assert "auth: no token was given" in only(lines, "fail")


def test_a_token_that_may_not_step_and_a_quota_that_is_used_up(counting_model: Path, tmp_path: Path) -> None:
    token, line = entry("a", "step,read")
    reading, other = entry("b", "read")
    (tmp_path / "tokens").write_text(f"{line}\n{other}\nquota tenant=a sessions=1\n")
    (tmp_path / "a").write_text(token)
    (tmp_path / "b").write_text(reading)
    options = ["--tokens", str(tmp_path / "tokens"), "--max-ttl-ms", "600000"]
    with ForkedServer([counting_model], "memory:", options) as server, Client(server.target, token=token) as client:
        client.session("a")
        used_up = only(doctor(server.target, "--token-file", str(tmp_path / "a"), code=1), "fail")
        assert "step: count: QuotaExceeded: quota sessions: " in used_up
        assert used_up.endswith("; delete sessions of this tenant or step less, or raise its quota")
        refused = only(doctor(server.target, "--token-file", str(tmp_path / "b"), code=1), "fail")
        assert refused.endswith("AccessDenied: Open needs the right step; use a token with the right step")


def test_a_server_that_keeps_no_session_as_long_as_a_scratch_session(counting_model: Path) -> None:
    with ForkedServer([counting_model], "memory:", ["--default-ttl-ms=60000", "--max-ttl-ms=60000"]) as server:
        lines = doctor(server.target, code=0)
        assert any("step: count: 8 steps of a scratch session" in line for line in lines)


def test_one_endpoint_is_down(counting_model: Path, nobody: str) -> None:
    with ForkedServer([counting_model], "memory:") as server:
        lines = doctor(server.target, nobody, *SHORT, code=1)
    assert only(lines, "fail").startswith(f"fail  {nobody} reach: not reached in 0.")
    assert "Connection refused" in only(lines, "fail")
    assert f"ok    {server.target} step: count:" in "\n".join(lines)
    assert only(lines, "skip") == "skip  store, clock, metrics: not checked: give --metrics URL"


def test_other_bundles_and_other_stores(tmp_path: Path) -> None:
    """Two replicas with different models of one name, and two with the same model but separate stores."""
    first, second = make_bundle(tmp_path / "a", seed=1), make_bundle(tmp_path / "b", seed=2)
    with (
        ForkedServer([first], "memory:") as one,
        ForkedServer([second], "memory:") as two,
        ForkedServer([first], "memory:") as three,
    ):
        lines = doctor(one.target, two.target, code=1)
        fails = [line for line in lines if line.startswith("fail")]
        assert (
            f"{two.target} model: serves other versions than {one.target}, or computes them differently: " in fails[0]
        )
        assert f"{two.target} step: " in fails[1]
        assert f"its outputs differ from those of {one.target} for the same inputs" in fails[1]
        lines = doctor(one.target, three.target, "--metrics", one.metrics_url, code=1)
        fails = [line for line in lines if line.startswith("fail")]
        assert f"{three.target} store: " in fails[0]
        assert "all replicas must share one --store" in fails[0]
        assert "memory: sessions are lost when the process ends" in fails[1]


def test_a_redis_that_syncs_every_second(counting_model: Path) -> None:
    with (
        RedisServer({"appendfsync": "everysec"}) as redis,
        ForkedServer([counting_model], redis.url) as server,
    ):
        lines = doctor(server.target, "--metrics", server.metrics_url, code=0)
        assert only(lines, "warn") == (
            f"warn  {server.metrics_url} store: redis, appendfsync everysec, noeviction, 0 replicas: a crash may lose "
            "the last second; set appendfsync always"
        )
        redis.pause()
        try:
            fails = [line for line in doctor(server.target, *SHORT, code=1) if line.startswith("fail")]
            assert f"{server.target} step: count: " in fails[0]
        finally:
            redis.wake()


def test_a_user_that_may_not_read_appendfsync(counting_model: Path) -> None:
    """The line must not say that it is not `always`: it is."""
    with RedisServer({"appendfsync": "always"}) as redis:
        with redis.client() as admin:
            admin.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-config")
        with ForkedServer([counting_model], redis.url.replace("://", "://app:pw@")) as server:
            lines = doctor(server.target, "--metrics", server.metrics_url, code=0)
    assert only(lines, "warn") == (
        f"warn  {server.metrics_url} store: redis, append-only file, noeviction, 0 replicas: the server may not read "
        "appendfsync; look with redis-cli config get appendfsync; always loses nothing, everysec may lose the last "
        "second"
    )


def test_a_server_that_ends(counting_model: Path) -> None:
    """It was told to stop, and gives balancers time to notice."""
    with ForkedServer([counting_model], "memory:", ["--drain-delay-ms", "60000"]) as server:
        server.send_signal(signal.SIGTERM)
        server.wait_for("stopping: serving for another")
        lines = doctor(server.target, *SHORT, code=1)
    advice = "it is starting or shutting down: wait, or check its log"
    assert only(lines, "fail") == f"fail  {server.target} health: NOT_SERVING; {advice}"
    assert not any(" step: " in line for line in lines)


def test_metrics_that_are_not_there(counting_model: Path, nobody: str) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", "Thu, 01 Jan 2015 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(b'cellkeeper_build_info{version="1"} 1.0\n' if self.path == "/old" else b"up 1\n")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        urls = [f"http://127.0.0.1:{server.server_port}{path}" for path in ("/other", "/old")]
        urls.append(f"http://{nobody}/metrics")
        lines = [str(finding) for finding in check_scrapes([Scrape.of(url, 5.0) for url in urls])]
        server.shutdown()
    assert f"fail  {urls[0]} metrics: not the metrics of a Cellkeeper server; give the URL of its /metrics" in lines
    assert f"fail  {urls[2]} metrics: not reached: " in "\n".join(lines)
    clock = next(line for line in lines if " clock: " in line)
    assert clock.startswith(f"warn  {urls[1]} clock: ")
    assert "s behind this machine's; synchronise both with NTP" in clock


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ({"Content-Length": "100"}, b"up 1\n", "IncompleteRead"),
        ({"Date": "yesterday"}, b"up 1\n", "Invalid date value"),
    ],
)
def test_answers_that_are_no_metrics(
    nobody: str, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], body: bytes, says: str
) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("http_proxy", f"http://{nobody}")  # for other machines
    with HTTPServer(("127.0.0.1", 0), Other) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = Scrape.of(f"http://127.0.0.1:{server.server_port}/metrics", 5.0)
        server.shutdown()
    assert says in found.error


@pytest.mark.parametrize("words", [[], ["--metrics", "http://x"]])
def test_it_wants_an_endpoint(words: list[str]) -> None:
    assert run_forked("cellkeeper", ["doctor", *words], os.environ, 60).status == 2
