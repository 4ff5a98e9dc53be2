"""Starts a real Redis server for tests, on its own port and folder, to be killed and restarted."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import redis

from testing.held_port import HeldPort

START_TIMEOUT_S = 20.0
WAIT_S = 60.0


def free_port() -> int:
    """Returns a loopback port that nobody was listening on a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_program() -> str:
    """Returns the path of `redis-server`, or of the program that REDIS_SERVER names in its place."""
    name = os.environ.get("REDIS_SERVER", "redis-server")
    executable = shutil.which(name)
    if executable is None:
        raise RuntimeError(f"{name} is not on the PATH; install Redis >= 7.0 to run these tests")
    return executable


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits until the condition is true; errors count as false."""
    deadline = time.monotonic() + WAIT_S
    while True:
        why = ""
        try:
            if condition():
                return
        except (redis.RedisError, LookupError) as error:
            why = f": {error}"
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come true within {WAIT_S} s{why}")
        time.sleep(0.01)  # between two checks of the condition


class RedisServer:
    """One `redis-server` process; use as a context manager.

    options: configuration, by name, which overrides the defaults (append-only file, synced at every write, no
    snapshots). A node of a cluster gets a port for its bus, too: `options["cluster-port"]`, once it has started.

        with RedisServer() as server:
            store = open_store(server.url)
            server.kill()      # SIGKILL: what was acknowledged must be there after restart()
            server.restart()   # the same port, the same folder
    """

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self.options = {"appendonly": "yes", "appendfsync": "always", "save": "", **(options or {})}
        self.folder = Path(tempfile.mkdtemp(prefix="cellkeeper-redis-"))
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = ExitStack()  # they are held until the end

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self._running().pid

    def start(self) -> None:
        """Starts on a free port and waits for an answer. Raises RuntimeError with the server's log if there is none."""
        self.port = self._ports.enter_context(HeldPort())
        if self.options.get("cluster-enabled") == "yes":
            self.options["cluster-port"] = str(self._ports.enter_context(HeldPort()))
        self._configure()
        self._launch()

    def restart(self) -> None:
        """Starts again on the same port and folder, after stop() or kill()."""
        self._launch()

    def kill(self) -> None:
        """Sends SIGKILL and waits until the process has ended."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Sends SIGTERM and waits until the process has ended."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Sends SIGSTOP: the server accepts connections and bytes, but does not answer."""
        self.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Sends SIGCONT: the server continues, starting with what arrived meanwhile."""
        self.send_signal(signal.SIGCONT)

    def send_signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def client(self) -> redis.Redis:
        """Returns a plain client for inspecting this server; close it."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5.0)

    def __enter__(self) -> RedisServer:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._ports.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the Redis server is not running")
        return self._process

    def _launch(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self._process = process
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._process = None
                raise RuntimeError(f"redis-server ended with {process.returncode}:\n{self.log()}")
            if self._answers(process.pid):
                return
            time.sleep(0.01)  # between two checks of the condition
        self.kill()
        raise RuntimeError(f"redis-server gave no PONG within {START_TIMEOUT_S} s:\n{self.log()}")

    def _configure(self) -> None:
        """Called when the port is known, before the first launch on it."""

    def _command(self) -> list[str]:
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), **self.options}
        return [redis_program(), *chain.from_iterable((f"--{name}", value) for name, value in options.items())]

    def _set_up(self, client: Any) -> None:
        """Called when the server answers, after each launch."""

    def _answers(self, pid: int) -> bool:
        """Returns True if this very process answers on the port, and not another that took the port first."""
        try:
            with self.client() as client:
                if int(client.info("server")["process_id"]) != pid:
                    return False
                self._set_up(client)
                return True
        except redis.RedisError:
            return False

    def log(self) -> str:
        """Returns the end of what it has logged, in all its runs."""
        return (self.folder / "server.log").read_text(errors="replace")[-4000:]

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if (status := process.poll()) is not None:  # whatever failed, this is why
            print(f"redis-server on port {self.port} ended by itself with {status}:\n{self.log()}", file=sys.stderr)
            return
        if number != signal.SIGKILL:  # SIGKILL needs no waking, and a paused server must not continue before it dies
            process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        process.wait(timeout=START_TIMEOUT_S)
