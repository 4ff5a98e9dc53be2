"""Signals to the running program: before it serves, while it serves, and to its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from cellkeeper_service.domain.position import advance

from testing.server_process import ServerProcess
from tests.integration.rpc.calls import Api, Chunk, numbers
from tests.integration.rpc.talk import Talk

from .launch import command


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
