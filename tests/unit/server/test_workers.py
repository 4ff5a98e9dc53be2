"""The exit status of several workers that are told to end, and their output."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading

import pytest
from cellkeeper_service.server.workers import _relay, _wait

STARTS = "print(flush=True); import signal; signal.pause()"
SERVES = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit({status})); " + STARTS
DRAINS, FAILS = SERVES.format(status=0), SERVES.format(status=1)


@pytest.mark.parametrize(
    ("programs", "status"),
    [
        ([DRAINS, DRAINS], 0),
        ([DRAINS, STARTS], 0),  # one has served
        ([STARTS, STARTS], 128 + signal.SIGTERM),
        ([STARTS, FAILS], 1),
        ([DRAINS, FAILS], 1),
    ],
)
def test_workers_that_are_told_to_end(programs: list[str], status: int) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", each], stdout=subprocess.PIPE, text=True) for each in programs]
    stopping = threading.Event()
    stopping.set()
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
        worker.terminate()
    ended = _wait(workers, stopping)
    for worker in workers:
        worker.communicate()
    assert ended == status


class FullOnce(io.StringIO):
    """Takes no first line, as on a disk that is full until then."""

    def __init__(self) -> None:
        super().__init__()
        self.full = True

    def write(self, text: str) -> int:
        full, self.full = self.full, False
        if full:
            raise OSError("No space left on device")
        return super().write(text)


def test_a_line_that_stdout_does_not_take_is_dropped_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", shown := FullOnce())
    program = [sys.executable, "-c", "print('one'); print('two'); print('three')"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as worker:
        _relay(worker)
    assert shown.getvalue() == "two\nthree\n"
