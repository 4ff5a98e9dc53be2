"""The running program: what it prints, how it stops, several processes on one port."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from urllib.request import urlopen

import grpc
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub
from cellkeeper_service.domain.position import advance

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess
from tests.integration.rpc.calls import Api, Chunk, numbers
from tests.integration.rpc.talk import Talk

from .launch import command, environment, program, serve

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_in_flight(counting_model: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Each pipelined step is committed and answered, or neither."""
    with ServerProcess([counting_model], f"sqlite:{tmp_path / 's.db'}") as server:
        with server.channel() as channel:
            api = Api(server.stub(channel))
            at, results, lost = api.open("s"), [], False
            with Talk(api) as talk:
                for _ in range(300):
                    talk.send(Chunk("s", numbers(1), at, acked=0))
                    at = advance(at, numbers(1).tobytes(), 4)
                results.append(talk.receive()[1])  # it is in the middle of them
                server.send_signal(number)
                try:
                    while len(results) < 300:
                        results.append(talk.receive()[1])
                except StopIteration:
                    pass  # ended, not lost: what was read is answered, the rest was not applied
                except grpc.RpcError:
                    lost = True  # closed while this side still sent: the last replies may be lost
            assert api.send("unary", Chunk("s", numbers(1), at), timeout_s=5).code == "UNAVAILABLE"
        assert server.stop() == 0
        applied = [result.sums[0] for result in results if result.code == "OK"]
        assert applied == list(range(1, len(applied) + 1))
        assert [(one.code, one.message) for one in results if one.code != "OK"] == []
        server.restart()
        with server.channel() as channel:
            step = Api(server.stub(channel)).position("s").step
            assert step == len(applied) or (lost and step > len(applied))


SIGNALLED = """
import os, signal, sys

def signalled():
    os.kill(os.getpid(), signal.{0})

class CalledBack:
    def __del__(self):  # what it raises is lost, as in many callbacks
        signalled()

class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name in ("cellkeeper_service.server.app", "cellkeeper_service.converters.command"):
            {1}()

sys.meta_path.insert(0, AtImport())
from cellkeeper_service.__main__ import main
main()
"""


def signalled(name: str, by: str = "signalled") -> tuple[str, ...]:
    """Returns the program that gets this signal while it is imported."""
    return sys.executable, "-c", SIGNALLED.format(name, by)


def test_a_reload_requested_while_the_program_is_imported(counting_model: Path) -> None:
    """It comes before the handler, and is neither lost nor fatal."""
    with ServerProcess([counting_model], "memory:", program=signalled("SIGHUP")) as server:
        server.wait_for("reload: nothing has changed")
        assert server.stop() == 0


@pytest.mark.parametrize("words", [["serve", "bundle"], ["import", "torch", "weights", "bundle"]])
def test_an_interrupt_before_it_serves_is_one_line(words: list[str]) -> None:
    done = subprocess.run([*signalled("SIGINT"), *words], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "cellkeeper-server: interrupted\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_before_it_serves_ends_it(counting_model: Path, tmp_path: Path, workers: int) -> None:
    words = ["serve", str(counting_model), f"--store=sqlite:{tmp_path / 's.db'}", f"--workers={workers}"]
    done = subprocess.run([*signalled("SIGTERM"), *words], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_not_lost_in_a_callback(counting_model: Path, name: str) -> None:
    """As it was if it came while uvloop or gRPC ran Python code: the server served on."""
    program = signalled(name, by="CalledBack")
    words = ["serve", str(counting_model), "--store=memory:", "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    done = subprocess.run([*program, *words], capture_output=True, text=True, timeout=60, check=False)
    expected = "cellkeeper-server: interrupted\n" if name == "SIGINT" else ""
    assert (done.returncode, done.stdout, done.stderr) == (-getattr(signal, name), "", expected)


@pytest.mark.parametrize("words", [["serve", "bundle"], ["import", "torch", "weights", "bundle"]])
def test_an_interrupt_before_it_serves_where_nobody_reads_stderr(words: list[str]) -> None:
    unread, written = os.pipe()
    os.close(unread)
    with os.fdopen(written, "w") as nowhere:
        done = subprocess.run([*signalled("SIGINT"), *words], stderr=nowhere, timeout=60, check=False)
    assert done.returncode == -signal.SIGINT


def test_the_first_process_of_a_container_ends_with_the_status_of_the_signal(counting_model: Path) -> None:
    """No signal ends it that it has no handler for."""
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the system makes no PID namespaces")
    done = subprocess.run([*unshare, *signalled("SIGTERM"), "serve", "bundle"], timeout=60, check=False)
    assert done.returncode == 128 + signal.SIGTERM


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the system does not list children")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_workers_have_handlers_ends_them(
    counting_model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGINT as from a terminal, which sends it to all of them."""
    words = ["serve", counting_model, f"--store=sqlite:{tmp_path / 's.db'}", "--workers=2", "--listen=127.0.0.1:0"]
    with subprocess.Popen(
        command(*words, "--metrics-listen=127.0.0.1:0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while len(children.read_text().split()) < 2:
            time.sleep(0.001)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in out) == (-number, False)
    assert out.count("interrupted") == (number == signal.SIGINT)
    assert "was killed" not in out


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


def scraped(url: str) -> dict[str, float]:
    with urlopen(url, timeout=10) as answer:
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


class Workers:
    """A server with several processes, and its output."""

    def __init__(self, *words: object, count: int = 2, variables: dict[str, str] | None = None) -> None:
        ports = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
        self.process = subprocess.Popen(
            command("serve", *ports, f"--workers={count}", *words),
            env=environment(variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._count = count

    @property
    def targets(self) -> set[str]:
        return {line.split()[-1] for line in self.lines if line.startswith("listening on ")}

    @property
    def metrics(self) -> list[str]:
        """The metrics' URL of each worker."""
        return [line.split()[-1] for line in self.lines if line.startswith("metrics on ")]

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in text.split()]

    def wait_until_serving(self) -> None:
        for _ in range(self._count):
            self.read_until("metrics on ")

    def read_until(self, start: str) -> None:
        """Reads up to the next line that starts like this."""
        before = len(self.lines)
        while not any(line.startswith(start) for line in self.lines[before:]):
            self.read_line()

    def read_line(self) -> None:
        line = self.process.stdout.readline() if self.process.stdout is not None else ""
        if not line:
            raise RuntimeError(f"it has ended: {self.lines}")
        self.lines.append(line.rstrip())

    def end(self) -> int:
        """Returns the exit status after it has ended on its own; the rest of its output is in `lines`."""
        if self.process.stdout is not None:
            self.lines += self.process.stdout.read().splitlines()
        return self.process.wait()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            for pid in self.pids:
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


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


def test_workers_that_cannot_start(tmp_path: Path) -> None:
    ended = serve(tmp_path / "nowhere", f"--store=sqlite:{tmp_path / 's.db'}", "--workers=2")
    assert ended.status == 1
    assert set(ended.err.splitlines()) == {
        f"cellkeeper-server: {tmp_path / 'nowhere'}: no such folder; give the folder of a model bundle"
    }


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
