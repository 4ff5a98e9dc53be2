"""What the server logs: JSON on request, refused calls at a limited rate, and nothing of their content."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
import pytest
from cellkeeper import Client, DeadlineExceeded
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service import logs

from testing.held_port import HeldPort
from testing.meanwhile import Meanwhile, TellingLock
from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .launch import command, environment, serve

SECRET = "patient-4711"
CALLS = 300


def refused(server: ServerProcess, *metadata: tuple[str, str], calls: int = 1) -> grpc.StatusCode:
    with server.channel() as channel:
        stub = server.stub(channel)
        for _ in range(calls):
            with pytest.raises(grpc.RpcError) as error:
                stub.GetSession(pb.GetSessionRequest(session=SECRET), metadata=metadata)
    return error.value.code()


def ready(server: ServerProcess) -> bool:
    try:
        urlopen(server.metrics_url.replace("/metrics", "/readyz"), timeout=30).close()
    except HTTPError as refused:
        refused.close()
        return False
    return True


def test_json_lines(counting_model: Path) -> None:
    with ServerProcess([counting_model], "memory:", ["--log-format", "json"]) as server:
        assert refused(server, ("x-request-id", "order-17/3")) is grpc.StatusCode.NOT_FOUND
        refused(server, ("x-request-id", f"{SECRET} level=error"), calls=CALLS)
        with server.channel() as channel, pytest.raises(grpc.RpcError):
            server.stub(channel).Open(pb.OpenRequest(session=SECRET, model="no such"))
        server.stop()
        text = server.output()
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    said = [line["message"] for line in lines if line["logger"] == logs.SAID]
    assert said[0].startswith("model count ")
    assert said[-1] == "stopped"
    first, *more = [line for line in lines if line.get("reason") == "SESSION_NOT_FOUND"]
    assert first.pop("peer").startswith("ipv4:127.0.0.1:")
    first.pop("time")
    assert first == {
        "level": "info",
        "logger": "cellkeeper_service.rpc.call_log",
        "message": "refused",
        "method": "GetSession",
        "reason": "SESSION_NOT_FOUND",
        "code": "NOT_FOUND",
        "request_id": "order-17/3",
    }
    assert len(more) < CALLS / 5  # one a second, on any machine
    assert not any("request_id" in line for line in more)
    assert [line["method"] for line in lines if line.get("reason") == "INVALID_FIELD"] == ["Open"]
    assert SECRET not in text


def test_why_the_store_failed_is_logged(counting_model: Path) -> None:
    """Also if only items of frames were refused, which are not logged; and what concerns no client, such as a probe."""
    with (
        RedisServer() as redis,
        ServerProcess([counting_model], redis.url) as server,
        Client(server.target, timeout=1) as client,
    ):
        client.session(SECRET).step([1.0])
        redis.client().config_set("maxmemory", "1")
        with pytest.raises(DeadlineExceeded):
            client.session(SECRET).step([2.0])
        redis.client().config_set("maxmemory", "0")
        client.session(SECRET).step([3.0])
        redis.stop()
        while ready(server):  # it may still rely on the answer to the step
            pass
        server.stop()
        text = server.output()
    failed = r"^.* WARNING cellkeeper_service\.core\.store_calls: the store failed: "
    full = "OOM command not allowed when used memory > 'maxmemory'; raise its maxmemory, or delete sessions"
    refused = failed + f"refused: Redis: {full} call=commit$"
    assert re.search(refused, text, re.MULTILINE)
    assert re.search(failed + ".*Connection.* call=probe", text, re.MULTILINE)
    assert SECRET not in text


def test_text_lines(counting_model: Path) -> None:
    with ServerProcess([counting_model], "memory:") as server:
        refused(server, ("x-request-id", "order-17"))
        server.stop()
        text = server.output()
    assert re.search(
        r"^[-0-9]+ [:,0-9]+ INFO cellkeeper_service\.rpc\.call_log: refused method=GetSession "
        r"reason=SESSION_NOT_FOUND code=NOT_FOUND peer=ipv4:127\.0\.0\.1:\d+ request_id=order-17$",
        text,
        re.MULTILINE,
    )
    assert SECRET not in text


def test_a_level_above(counting_model: Path) -> None:
    with ServerProcess([counting_model], "memory:", ["--log-level", "warning"]) as server:
        refused(server)
        server.stop()
        assert "refused" not in server.output()


def test_workers_say_where_their_metrics_are(counting_model: Path, tmp_path: Path) -> None:
    words = ["--log-format", "json", "--workers", "2"]
    with ServerProcess([counting_model], f"sqlite:{tmp_path / 's.db'}", words) as server:
        while server.output().count('"message": "metrics on ') < 1:  # ServerProcess has consumed one already
            server.wait_for(r'"message": "metrics on ')
        lines = [json.loads(line) for line in server.output().splitlines()]
    (url,) = [line["message"].split()[-1] for line in lines if line["message"].startswith("metrics of all workers")]
    assert url.endswith("/metrics")


def test_where_metrics_are_is_not_taken_from_what_workers_print(
    counting_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign line, such as a name or an error's text might cause, does not mislead the parent."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif '--as-worker' in sys.orig_argv: print('metrics on http://127.0.0.1:1/metrics', flush=True)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with ServerProcess([counting_model], f"sqlite:{tmp_path / 's.db'}", ["--workers", "2"]) as server:
        server.wait_for("listening on")  # the other worker: ServerProcess has waited for one
        url = re.search(r"metrics of all workers on (\S+)", server.output())
        assert url is not None
        server.metrics_url = url.group(1)
        until = time.monotonic() + 10
        while True:
            try:
                text = server.metrics()
                break
            except HTTPError:  # a worker has not reported yet
                assert time.monotonic() < until
        assert "cellkeeper_build_info" in text


@pytest.mark.parametrize("bad", ["count\n2026-01-01 00:00:00,000 INFO x: y", "a\rb", "a\x1b[2Jb", "\u202eb"])
def test_a_models_name_is_printable(counting_model: Path, tmp_path: Path, bad: str) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(counting_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "name": bad}))
    line = serve(folder).line
    assert "name: got" in line
    assert "printable characters" in line
    assert line.isprintable()


@pytest.mark.usefixtures("logging_undone")
@pytest.mark.parametrize("format", ["text", "json"])
def test_no_text_makes_a_line_of_its_own(capsys: pytest.CaptureFixture[str], format: str) -> None:
    forged = "a\n2026-01-01 00:00:00,000 INFO x: forged\r\x1b[2J"
    logs.set_up(format)
    logging.getLogger("x").warning("model %s", forged, extra={"fields": {"peer": forged}})
    logs.say(f"model {forged}")
    try:
        raise ValueError(forged)
    except ValueError:
        logging.getLogger("x").exception("failed")
    out, err = capsys.readouterr()
    lines = (out + err).splitlines()
    assert not any(line.startswith("2026-01-01") for line in lines)
    assert all(line.isprintable() for line in lines if "failed" not in line and not line.startswith("  "))
    assert len(out.splitlines()) == 1


def test_a_server_that_cannot_start_says_so_in_json(counting_model: Path) -> None:
    ended = serve("--log-format=json", "--store=other:", counting_model)
    assert ended.status == 1
    (line,) = ended.err.splitlines()
    assert json.loads(line)["level"] == "error"
    assert "other:" in json.loads(line)["message"]


@pytest.mark.parametrize(
    ("word", "expected"), [("--log-format=xml", "expected text or json"), ("--log-level=loud", "debug, info")]
)
def test_settings_that_cannot_be(counting_model: Path, word: str, expected: str) -> None:
    assert expected in serve(word, counting_model).line


def test_so_many_in_a_second() -> None:
    now = [10.0]
    rate = logs.PerSecond(2, clock=lambda: now[0])
    assert [rate.admit("a") for _ in range(5)] == [0, 0, None, None, None]
    assert rate.admit("b") == 0
    now[0] = 11.2
    assert [rate.admit("a") for _ in range(3)] == [3, 0, None]


def test_so_many_in_a_second_from_several_threads() -> None:
    """One thread has read the clock when the next second begins, in which another thread's event is let through."""
    lock, seconds = TellingLock(), iter([10.0, 11.0, 11.0])

    def clock() -> float:
        now = next(seconds)
        other.begin()
        return now

    rate, admitted = logs.PerSecond(1, clock), list[int | None]()
    rate._lock = lock  # type: ignore[assignment]
    other = Meanwhile(lambda: admitted.append(rate.admit("a")), lock)
    assert rate.admit("a") == 0
    other.end()
    assert admitted == [0]
    assert rate.admit("a") is None


def test_a_failure_comes_with_its_trace() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        trace = (type(error), error, error.__traceback__)
    record = logging.LogRecord("here", logging.ERROR, __file__, 1, "it %s", ("failed",), trace)
    line = json.loads(logs.JsonFormatter().format(record))
    assert line["message"] == "it failed"
    assert "ValueError: no" in line["exception"]


class Writes(io.RawIOBase):
    """A stream that keeps each of its writes."""

    def __init__(self) -> None:
        self.all: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.all.append(bytes(data))
        return len(data)


@pytest.mark.parametrize(("name", "tell"), [("stderr", logs.say_why_it_ends), ("stdout", logs.say)])
def test_a_line_is_written_in_one_piece(
    monkeypatch: pytest.MonkeyPatch, name: str, tell: Callable[[str], None]
) -> None:
    """Workers share their parent's stderr, and their lines must not mingle. Without buffering, as in the image."""
    raw = Writes()
    monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, write_through=True))  # type: ignore[type-var]
    tell("a line")
    assert len(raw.all) == 1
    assert raw.all[0].endswith(b"a line\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_output_that_nobody_takes_is_dropped(counting_model: Path) -> None:
    """It was a traceback for each line, such as on a full disk."""
    words = ["serve", counting_model, "--store=memory:", "--listen=127.0.0.1:0"]
    with (
        HeldPort() as port,
        open("/dev/full", "w") as full,
        subprocess.Popen(
            command(*words, f"--metrics-listen=127.0.0.1:{port}"), stdout=full, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        while not is_ready(f"http://127.0.0.1:{port}/readyz"):
            assert process.poll() is None
            time.sleep(0.01)  # between two checks of the condition
        process.terminate()
        assert process.stderr is not None
        assert (process.wait(60), process.stderr.read()) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "words",
    ["--version", "--help", "serve --help", "import torch --help", "token new --tenant a --rights step"],
)
def test_a_command_whose_output_nobody_takes_has_failed(words: str, variables: dict[str, str]) -> None:
    """--version ended in a traceback, and --help as if it had been printed."""
    own = {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(*words.split()),
            env={**own, **variables},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (1, "cellkeeper-server: stdout: No space left on device\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_a_wrong_option_that_nobody_is_told_of_has_its_exit_code() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("serve", "--bad"), env=environment(), stderr=full, timeout=60)
    assert done.returncode == 2


def is_ready(url: str) -> bool:
    try:
        urlopen(url, timeout=30).close()
    except OSError:
        return False
    return True
