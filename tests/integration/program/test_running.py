"""The running program: what it prints, and what it leaves of its streams, its port and its password."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess
from tests.integration.rpc.calls import Api, Chunk, numbers

from .launch import program, serve

PASSWORD = "s3cret-w0rd"


def test_it_prints_its_version() -> None:
    ended = program("--version")
    assert (ended.status, ended.err) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n|unknown\n", ended.out)


def test_it_says_what_it_serves_and_from_where(counting_model: Path, tmp_path: Path) -> None:
    with ServerProcess([counting_model], f"sqlite:{tmp_path / 's.db'}") as server:
        with server.channel() as channel:
            model = Api(server.stub(channel)).call("GetModel", pb.GetModelRequest())
        assert server.stop() == 0
        lines = server.output().splitlines()
    fingerprint = model.fingerprint.hex()[:12]
    assert lines[0].startswith(f"model count {fingerprint}: {model.numerics}; exact; ")
    assert lines[1:] == [
        f"store sqlite: sqlite:{tmp_path / 's.db'}",
        f"listening on {server.target}",
        f"metrics on {server.metrics_url}",
        "stopping: finishing requests in progress",
        "stopped",
    ]


def test_a_password_is_never_printed(counting_model: Path) -> None:
    with RedisServer() as redis:
        with redis.client() as client:
            client.config_set("requirepass", PASSWORD)
        url = f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/0"
        with ServerProcess([counting_model], url, ["--store-timeout-ms", "300"]) as server, server.channel() as channel:
            api = Api(server.stub(channel))
            at = api.send("unary", Chunk("s", numbers(1))).after
            redis.kill()
            got = api.send("unary", Chunk("s", numbers(1), at))
            assert got.code == "UNAVAILABLE"
            assert PASSWORD not in got.message
            assert server.stop() == 0
            assert f"store redis: 127.0.0.1:{redis.port}/0" in server.output()
            assert PASSWORD not in server.output()


@pytest.mark.parametrize("workers", [1, 2])
def test_streams_that_are_closed(counting_model: Path, tmp_path: Path, workers: int) -> None:
    """No connection gets their numbers, to which libraries write their messages."""
    program = ("sh", "-c", 'exec "$0" -m cellkeeper_service "$@" <&- 2>&-', sys.executable)
    with ServerProcess([counting_model], f"sqlite:{tmp_path / 's.db'}", program=program, workers=workers) as server:
        opened = [Path(f"/proc/{server.pid}/fd/{number}").readlink() for number in (0, 2)]
        assert opened == [Path(os.devnull)] * 2
        assert server.stop() == 0
        assert "Traceback" not in server.output()


def test_a_second_server_does_not_share_the_port_unasked(counting_model: Path, tmp_path: Path) -> None:
    with ServerProcess([counting_model], "memory:") as server:
        line = serve(counting_model, "--store=memory:", f"--listen={server.target}").line
        assert line.startswith(f"cannot listen on {server.target} (")
        store = f"--store=sqlite:{tmp_path / 'unused.db'}"
        workers = serve(counting_model, store, "--workers=2", f"--listen={server.target}").line
        assert workers.startswith(f"cannot listen on {server.target} ")
