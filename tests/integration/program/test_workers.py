"""Several processes on one port: they serve, fail and end together."""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path

import grpc
import pytest
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub

from testing.redis_server import RedisServer
from tests.integration.rpc.calls import Api, Chunk, numbers

from .launch import serve
from .workers import Workers, scraped

PASSWORD = "s3cret-w0rd"


def test_two_workers_serve_on_one_port_and_stop_together(counting_model: Path, tmp_path: Path) -> None:
    with Workers(f"--store=sqlite:{tmp_path / 's.db'}", counting_model) as workers:
        workers.wait_until_serving()
        (target,) = workers.targets
        assert len(workers.pids) == 2
        at = None
        for step in range(8):  # one connection each: the kernel spreads them
            with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                api = Api(CellkeeperStub(channel))  # type: ignore[no-untyped-call]
                at = at or api.open("s")
                got = api.send("unary", Chunk("s", numbers(1), at))
                assert (got.sums, got.replayed) == ([step + 1], False)
                at = got.after
        each = [scraped(url) for url in workers.metrics]
        (merged,) = [scraped(line.split()[-1]) for line in workers.lines if line.startswith("metrics of all")]
        steps = 'cellkeeper_steps_total{model="count"}'
        assert merged[steps] == sum(one.get(steps, 0.0) for one in each) == 8
        assert len(each) == 2
        build = next(name for name in merged if name.startswith("cellkeeper_build_info"))
        assert merged[build] == 1
        workers.process.send_signal(signal.SIGTERM)
        assert workers.end() == 0
        assert workers.lines.count("stopped") == 2, workers.lines


def test_workers_whose_metrics_port_is_taken_do_not_start(counting_model: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        words = (f"--store=sqlite:{tmp_path / 's.db'}", "--workers=2", f"--metrics-listen={place}")
        ended = serve(counting_model, *words)
        assert ended.status == 1
        assert ended.line.startswith(f"metrics: cannot listen on {place} ")


@pytest.mark.parametrize("index", [0, pytest.param(1, marks=pytest.mark.fire)])
def test_when_one_worker_dies_the_others_stop(counting_model: Path, tmp_path: Path, index: int) -> None:
    with Workers(f"--store=sqlite:{tmp_path / 's.db'}", counting_model) as workers:
        workers.wait_until_serving()
        os.kill(killed := workers.pids[index], signal.SIGKILL)
        assert workers.end() == 128 + signal.SIGKILL
        assert workers.lines.count("stopped") == 1, workers.lines
        (why,) = [line for line in workers.lines if "ERROR" in line]
        assert f": worker {killed} was killed by signal 9 (if memory ran out, the kernel sent it" in why


def test_workers_end_with_the_process_that_started_them(counting_model: Path, tmp_path: Path) -> None:
    words = (f"--store=sqlite:{tmp_path / 's.db'}", counting_model)
    with Workers(*words) as workers:
        workers.wait_until_serving()
        (target,), pids = workers.targets, workers.pids
        watched = [os.pidfd_open(pid) for pid in pids]
        try:
            workers.process.kill()
            for one in watched:
                ready, _, _ = select.select([one], [], [], 30)
                assert ready, "a worker goes on, and holds the port"
        finally:
            for one in watched:
                os.close(one)
    with Workers(*words, f"--listen={target}") as again:
        again.wait_until_serving()


def test_workers_do_not_show_a_password_to_who_lists_processes(counting_model: Path) -> None:
    with RedisServer({"appendonly": "no"}) as redis:
        with redis.client() as client:
            client.config_set("requirepass", PASSWORD)
        url = f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/0"
        with Workers(counting_model, variables={"CELLKEEPER_STORE": url}) as workers:
            workers.wait_until_serving()
            for pid in (workers.process.pid, *workers.pids):
                assert PASSWORD not in Path(f"/proc/{pid}/cmdline").read_text()
            workers.process.send_signal(signal.SIGTERM)
            assert workers.end() == 0
            assert not any(PASSWORD in line for line in workers.lines)
