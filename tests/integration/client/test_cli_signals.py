"""Signals end `cellkeeper stream` with the rows that it has sent answered and printed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cellkeeper import Client

from .conftest import ServerThread

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]

pytestmark = pytest.mark.timeout(120)


def started(target: str, session: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cellkeeper", "stream", "--session", session, "--endpoint", target, *options]
    pipe = subprocess.PIPE
    # Under nohup, or in the background, the tests ignore some of them, and so would what they start.
    ignored = {number: signal.SIG_IGN for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN}
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        return subprocess.Popen([*command, "--format", "jsonl"], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    finally:
        for number, before in ignored.items():
            signal.signal(number, before)


def until(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.001)


def handles(process: subprocess.Popen[str], number: int) -> bool:
    """Returns True if the process has a handler for the signal."""
    (line,) = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "SigCgt" in line]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def steps_of(printed: Sequence[str]) -> list[int]:
    return [int(line.partition('"step": ')[2].partition(",")[0]) for line in printed]


@pytest.mark.parametrize("number", SIGNALS)
def test_every_row_that_the_session_has_consumed_is_printed(
    real_target: str, tmp_path: Path, number: signal.Signals
) -> None:
    count = 20_000
    rows = tmp_path / "rows.csv"
    rows.write_text("1.5,1\n" * count)
    session = f"signalled {number.name}"
    with started(real_target, session, "--csv", str(rows)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        printed = [process.stdout.readline() for _ in range(100)]
        process.send_signal(number)
        printed += process.stdout.readlines()
        assert process.wait(60) == -number
        assert process.stderr.read() == "cellkeeper: interrupted\n"
    with Client(real_target) as client:
        consumed = client.session(session).position.step
        assert 100 <= consumed < count
        assert steps_of(printed) == list(range(consumed))
        rows.write_text("1.5,1\n" * (consumed + 50))
        with started(real_target, session, "--csv", str(rows), "--resume") as process:
            out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert steps_of(out.splitlines()) == list(range(consumed, consumed + 50))
        assert client.session(session).delete()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_row_that_never_comes_is_not_waited_for(real_target: str, number: signal.Signals) -> None:
    session = f"waiting {number.name}"
    with started(real_target, session, "--csv", "-", "--header", "no") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("1,2\n")
        process.stdin.flush()
        assert steps_of([process.stdout.readline()]) == [0]
        process.send_signal(number)
        assert process.wait(60) == -number
        assert process.stdout.read() == ""
        assert process.stderr is not None
        assert process.stderr.read() == "cellkeeper: interrupted\n"
    with Client(real_target) as client:
        assert client.session(session).delete()


AT_IMPORT = """
import os, signal, sys

class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, AtImport())
import cellkeeper_command
cellkeeper_command.main()
"""


def test_ctrl_c_while_the_program_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT, "sessions", "list"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_in_a_call() -> None:
    """As with any program, a shell sees that a signal has ended it, and ends a loop around it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "cellkeeper", "sessions", "list", "--endpoint", endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = silent.accept()  # it calls, and gets no answer
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
            connection.close()
    assert (process.returncode, err) == (-signal.SIGINT, "cellkeeper: interrupted\n")


def test_ctrl_c_where_nobody_reads_stderr() -> None:
    unread, written = os.pipe()
    os.close(unread)
    with socket.create_server(("127.0.0.1", 0)) as silent, os.fdopen(written, "w") as nowhere:
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "cellkeeper", "sessions", "list", "--endpoint", endpoint]
        with subprocess.Popen(command, stderr=nowhere) as process:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == -signal.SIGINT
            connection.close()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the system does not list handled signals")
def test_a_second_signal_does_not_wait_for_answers(threaded: ServerThread, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("1.5,1\n" * 3)
    threaded.server.gate.clear()
    with started(threaded.target, "a", "--csv", str(rows)) as process:
        until(lambda: threaded.server.frames > 0)
        assert handles(process, signal.SIGTERM)
        process.terminate()
        until(lambda: not handles(process, signal.SIGTERM))
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the system does not list handled signals")
def test_signals_that_are_ignored_stay_ignored(real_target: str) -> None:
    """As after nohup."""
    code = (
        "import signal, sys; from cellkeeper.__main__ import main; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "stream", "--session", "nohup", "--endpoint", real_target, "--header", "no"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: handles(process, signal.SIGTERM))
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate("1,2\n3,4\n", timeout=60)
        assert process.returncode == 0
        assert len(out.splitlines()) == 3
    with Client(real_target) as client:
        assert client.session("nohup").delete()
