"""The real server program as a process of its own: started on free ports, killed, stopped, restarted."""

from __future__ import annotations

import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TypeAlias, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub

from testing.forked_program import ForkedProcess
from testing.held_port import HeldPort

START_TIMEOUT_S = 100.0  # below the 120 that pytest gives a test; a busy machine needs most of it
STOP_TIMEOUT_S = 40.0
WORKER_KILLED = 128 + signal.SIGKILL
"""The exit status of a server of which a worker was killed."""

Server = TypeVar("Server", bound="ServerProcess")
Launched: TypeAlias = "subprocess.Popen[str] | ForkedProcess"


class ServerProcess:
    """`cellkeeper-server serve`; use as a context manager.

    options: additional command line arguments. variables: environment variables, added to those of this process except
    its CELLKEEPER_... ones. program: what to start; default: the service's code, with this interpreter. workers: how
    many processes serve; with several, the started one is their parent. http: listen for HTTP, too. It listens on free
    ports, and on the same ones after `restart`.

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
        workers: int = 1,
        http: bool = False,
    ) -> None:
        self.bundles = bundles
        self.store = store
        self.options = options
        self.variables = variables or {}
        self.program = program
        self.workers = workers
        self.port = 0
        self.http_url = "" if not http else "http://127.0.0.1:0"  # until it starts; without a trailing slash
        self.metrics_url = ""
        self.lines: list[str] = []  # the output of all its runs
        self._own_lines: list[str] = []  # the part of it from the latest run
        self._process: Launched | None = None
        self._arrived: queue.Queue[tuple[Launched, str | None]] = queue.Queue()
        self._ports = ExitStack()  # they are held until the end, also while it does not run

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        """The URL for clients whose steps go over WebSockets."""
        return self.http_url.replace("http", "ws", 1)

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def serving_pids(self) -> list[int]:
        """The ids of the processes that serve: the workers, or the server itself."""
        return self._worker_pids() if self.workers > 1 else [self.pid]

    @property
    def running(self) -> bool:
        """True if it was started, and not stopped or killed since."""
        return self._process is not None

    def start(self) -> None:
        """Starts the server and waits until it serves. Raises RuntimeError with its output if it does not."""
        if not self.port:
            self.port = self._ports.enter_context(HeldPort())
            if self.http_url:
                self.http_url = f"http://127.0.0.1:{self._ports.enter_context(HeldPort())}"
        words = ["serve", *map(str, self.bundles)]
        words += ["--store", self.store, "--listen", f"127.0.0.1:{self.port}", "--metrics-listen", "127.0.0.1:0"]
        if self.http_url:
            words += ["--http-listen", self.http_url.partition("://")[2]]
        if self.workers > 1:
            words += ["--workers", str(self.workers)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CELLKEEPER_")}
        environment |= self.variables
        self._own_lines = []
        self._process = self._launch([*words, *self.options], environment)
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        if self.workers > 1:
            self.metrics_url = self.wait_for(r"metrics of all workers on (\S+)")
        self.wait_for(rf"listening on {self.target}\b")
        urls = [self.wait_for(r"metrics on (\S+)") for _ in range(self.workers)]
        self.metrics_url = self.metrics_url if self.workers > 1 else urls[0]
        if self.http_url:
            self.http_url = self.wait_for(r"http on (\S+)").rstrip("/")

    def restart(self) -> None:
        self.start()

    def kill(self) -> None:
        """Sends SIGKILL and waits until the server and its workers, which then end on their own, have ended."""
        self._running()
        self._end()

    def kill_worker(self, number: int) -> int:
        """Kills one of several workers and waits until the others have ended too. Returns the exit status."""
        process = self._running()
        os.kill(self._worker_pids()[number], signal.SIGKILL)
        status = process.wait(STOP_TIMEOUT_S)
        self._process = None
        return status

    def stop(self) -> int:
        """Sends SIGTERM. Returns the exit status."""
        process = self._running()
        process.terminate()
        status = process.wait(STOP_TIMEOUT_S)
        self._process = None
        return status

    def send_signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def channel(self) -> grpc.Channel:
        """Returns a channel for raw calls. Close it, or use it as a context manager."""
        return grpc.insecure_channel(self.target)

    def stub(self, channel: grpc.Channel) -> CellkeeperStub:
        return CellkeeperStub(channel)  # type: ignore[no-untyped-call]

    def metrics(self) -> str:
        """Scrapes the metrics. With several workers, retries while the sum is refused because one has not reported."""
        until = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with urlopen(self.metrics_url, timeout=10) as answer:
                    return str(answer.read().decode())
            except HTTPError as error:
                error.close()
                if self.workers == 1 or error.code != 503 or time.monotonic() > until:
                    raise
            time.sleep(0.01)  # between two attempts

    def metric(self, name: str, **labels: str) -> float:
        """Returns the sum of a metric's samples that have these labels; 0 if there are none."""
        total = 0.0
        for line in self.metrics().splitlines():
            sample, _, value = line.rpartition(" ")
            family, _, rest = sample.partition("{")
            if family == name and all(f'{label}="{text}"' in rest for label, text in labels.items()):
                total += float(value)
        return total

    def wait_for(self, pattern: str) -> str:
        """Waits for a printed line that matches `pattern`. Returns its first group, or the whole match."""
        until = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                process, line = self._arrived.get(timeout=max(until - time.monotonic(), 0.001))
            except queue.Empty:
                process, line = self._running(), None
            if line is not None:
                self.lines.append(line)
            if process is not self._process:  # left over from an earlier run
                continue
            if line is None:
                self._end()
                raise RuntimeError(f"the server did not print {pattern!r}:\n{''.join(self._own_lines)}")
            self._own_lines.append(line)
            found = re.search(pattern, line)
            if found:
                return found.group(1) if found.groups() else found.group(0)

    def output(self) -> str:
        """Returns everything printed so far."""
        while not self._arrived.empty():
            _, line = self._arrived.get()
            if line is not None:
                self.lines.append(line)
        return "".join(self.lines)

    def _launch(self, words: Sequence[str], environment: Mapping[str, str]) -> Launched:
        """Starts the program."""
        return subprocess.Popen(
            [*self.program, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )

    def _read(self, process: Launched) -> None:
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    self._arrived.put((process, line))
        self._arrived.put((process, None))

    def _worker_pids(self) -> list[int]:
        """Returns the ids of the started workers; none if they have ended, or if the server has no workers."""
        process = self._running()
        if self.workers == 1 or process.poll() is not None:
            return []
        return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]

    def _running(self) -> Launched:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            with _watched(self._worker_pids()) as workers:
                self._process.kill()
                self._process.wait()
                self._process = None
                for worker in workers:
                    if not worker.poll(1000 * STOP_TIMEOUT_S):
                        raise RuntimeError(f"a worker still runs {STOP_TIMEOUT_S:g} s after its parent was killed")

    def __enter__(self: Server) -> Server:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._ports.close()


@contextmanager
def _watched(pids: Sequence[int]) -> Iterator[list[select.poll]]:
    """Yields a poll object for each of these processes that runs, which has an event once the process has ended."""
    with ExitStack() as opened:
        watched = []
        for pid in pids:
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                opened.callback(os.close, descriptor)
                watched.append(select.poll())
                watched[-1].register(descriptor, select.POLLIN)
        yield watched
