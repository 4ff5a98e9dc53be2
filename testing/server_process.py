"""The real program, as a process of its own: started on free ports, killed, stopped, started again."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.request import urlopen

import grpc
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0


class ServerProcess:
    """`cellkeeper-server serve`; use as a context manager.

    options: further words of the command line. variables: environment variables that it has beside those of this
    process. program: what is started, if not the service's code of this interpreter. http: it listens for HTTP, too. It
    listens on free ports, and on the same ones after `restart`.

        with ServerProcess([bundle], f"sqlite:{path}") as server:
            server.kill()
            server.restart()
    """

    def __init__(
        self,
        bundles: Sequence[Path],
        store: str,
        options: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        program: Sequence[str] = (sys.executable, "-m", "cellkeeper_service"),
        http: bool = False,
    ) -> None:
        self.bundles = bundles
        self.store = store
        self.options = options
        self.variables = variables or {}
        self.program = program
        self.port = 0
        self.http_url = "" if not http else "http://127.0.0.1:0"  # without a slash at the end
        self.metrics_url = ""
        self.lines: list[str] = []  # what it printed, over all its lives
        self._process: subprocess.Popen[str] | None = None
        self._arrived: queue.Queue[str | None] = queue.Queue()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        """For clients whose steps go over WebSockets."""
        return self.http_url.replace("http", "ws", 1)

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def running(self) -> bool:
        """Started, and not stopped or killed since."""
        return self._process is not None

    def start(self) -> None:
        """Starts it and waits until it serves. RuntimeError with what it printed if it does not."""
        command = [*self.program, "serve", *map(str, self.bundles)]
        command += ["--store", self.store, "--listen", f"127.0.0.1:{self.port}", "--metrics-listen", "127.0.0.1:0"]
        if self.http_url:
            command += ["--http-listen", self.http_url.partition("://")[2]]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CELLKEEPER_")}
        environment |= self.variables
        self._process = subprocess.Popen(
            [*command, *self.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self._arrived = queue.Queue()
        threading.Thread(target=self._read, args=(self._process, self._arrived), daemon=True).start()
        self.port = int(self.wait_for(r"listening on 127\.0\.0\.1:(\d+)"))
        self.metrics_url = self.wait_for(r"metrics on (\S+)")
        if self.http_url:
            self.http_url = self.wait_for(r"http on (\S+)").rstrip("/")

    def restart(self) -> None:
        self.start()

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        process = self._running()
        process.terminate()
        status = process.wait(STOP_TIMEOUT_S)
        self._process = None
        return status

    def send_signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def channel(self) -> grpc.Channel:
        """A channel for raw calls. Close it, or use it as a context manager."""
        return grpc.insecure_channel(self.target)

    def stub(self, channel: grpc.Channel) -> CellkeeperStub:
        return CellkeeperStub(channel)  # type: ignore[no-untyped-call]

    def metrics(self) -> str:
        """One scrape."""
        with urlopen(self.metrics_url, timeout=10) as answer:
            return str(answer.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 where there is none."""
        total = 0.0
        for line in self.metrics().splitlines():
            sample, _, value = line.rpartition(" ")
            family, _, rest = sample.partition("{")
            if family == name and all(f'{label}="{text}"' in rest for label, text in labels.items()):
                total += float(value)
        return total

    def wait_for(self, pattern: str) -> str:
        """The first group of the next printed line that `pattern` is found in."""
        until = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                line = self._arrived.get(timeout=max(until - time.monotonic(), 0.001))
            except queue.Empty:
                line = None
            if line is None:
                self._end()
                raise RuntimeError(f"the server did not print {pattern!r}:\n{''.join(self.lines)}")
            self.lines.append(line)
            found = re.search(pattern, line)
            if found:
                return found.group(1) if found.groups() else found.group(0)

    def output(self) -> str:
        """Everything printed so far."""
        while not self._arrived.empty():
            line = self._arrived.get()
            if line is not None:
                self.lines.append(line)
        return "".join(self.lines)

    def _read(self, process: subprocess.Popen[str], arrived: queue.Queue[str | None]) -> None:
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    arrived.put(line)
        arrived.put(None)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
