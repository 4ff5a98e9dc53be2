"""The demo's server programs: started, killed, and restarted in the same place."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

START_SECONDS = 180.0  # a busy machine imports slowly
STOP_SECONDS = 30.0

LISTENING = re.compile(r"listening on (?P<target>\S+:\d+)")
METRICS = re.compile(r"metrics on (?P<url>http://\S+)")
CONSOLE = re.compile(r"http on (?P<console>http://(?P<console_at>\S+:\d+)/)")


class Failed(Exception):
    """A program did not do what it should; the text holds its last output."""


class CellkeeperServer:
    """`cellkeeper-server serve` as a process. `target`, `metrics_url` and `console_url` are known after `start`."""

    def __init__(self, bundles: Path | Sequence[Path], store: str, log: Path, *, console: bool = False) -> None:
        """store: a URL as for --store. log: receives the output of all the server's processes. console: it also serves
        the console, which needs aiohttp."""
        self.target = "127.0.0.1:0"
        self.metrics_url = ""
        self.console_url = ""
        self._console_at = "127.0.0.1:0" if console else ""
        self._patterns = [LISTENING, METRICS, *([CONSOLE] if console else [])]
        self._bundles = [bundles] if isinstance(bundles, Path) else bundles
        self._store, self._log_path = store, log
        self._log: IO[str] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> float:
        """Starts the server, on its previous port if it had one, and waits until it listens. Returns the seconds."""
        started = time.monotonic()
        self._log = self._log_path.open("a", encoding="utf-8")
        command = [
            *(sys.executable, "-m", "cellkeeper_service", "serve", *map(str, self._bundles)),
            *("--store", self._store, "--listen", self.target, "--metrics-listen", "127.0.0.1:0", "--device", "cpu"),
            *(("--http-listen", self._console_at) if self._console_at else ()),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self._process = process
        ready = threading.Event()
        found: dict[str, str] = {}
        self._reader = threading.Thread(target=self._read, args=(process, found, ready), daemon=True)
        self._reader.start()
        if not ready.wait(START_SECONDS) or not self._is_complete(found):
            self.close()
            tail = self._log_path.read_text(encoding="utf-8")[-2000:]
            raise Failed(f"the server did not start within {START_SECONDS:.0f} s; it printed:\n{tail}")
        self.target, self.metrics_url = found["target"], found["url"]
        self.console_url, self._console_at = found.get("console", ""), found.get("console_at", "")
        return time.monotonic() - started

    def kill(self) -> None:
        """Sends SIGKILL, so that the server cannot finish anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Sends SIGTERM, so that the server finishes what is in flight. Returns its exit status."""
        return self._end(signal.SIGTERM)

    def close(self) -> None:
        """Ends the server if it is running."""
        self._end(signal.SIGKILL)

    def _end(self, with_signal: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(with_signal)
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Failed(f"the server did not stop within {STOP_SECONDS:.0f} s of {with_signal.name}") from None
        finally:
            if self._reader is not None:
                self._reader.join()
            if self._log is not None:
                self._log.close()
        return status

    def _read(self, process: subprocess.Popen[str], found: dict[str, str], ready: threading.Event) -> None:
        if process.stdout is None or self._log is None:
            return
        with process.stdout:
            for line in process.stdout:
                self._log.write(line)
                self._log.flush()
                for pattern in self._patterns:
                    match = pattern.search(line)
                    if match:
                        found.update(match.groupdict())
                if self._is_complete(found):
                    ready.set()
        ready.set()  # it has ended: waiting longer is of no use

    def _is_complete(self, found: dict[str, str]) -> bool:
        """Returns True if the server has printed everything that `start` waits for."""
        return all(name in found for pattern in self._patterns for name in pattern.groupindex)


class RedisServer:
    """A Redis server for the demo, on a free port, that writes to disk before it answers."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise Failed("no redis-server on the PATH; run scripts/ensure-redis")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        folder.mkdir(parents=True)
        self._log = folder / "redis.log"
        self.url = f"redis://127.0.0.1:{port}/0"
        command = [
            *(program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"),
            *("--logfile", str(self._log)),
        ]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise Failed(f"the Redis server did not start; see {self._log}")
            time.sleep(0.05)

    def close(self) -> None:
        """Ends the server."""
        self._process.terminate()
        self._process.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False
