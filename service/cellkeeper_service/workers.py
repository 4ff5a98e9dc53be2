"""Several server processes on one port: each is a server of its own, and the store keeps them in agreement."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace

from cellkeeper_service.config import STORE_VARIABLE, Settings, split_address
from cellkeeper_service.errors import StartError

WORKER_FLAG = "--as-worker"


def serve_workers(settings: Settings) -> int:
    """Starts settings.workers processes and waits for them; SIGTERM goes on to each. Returns the exit status.

    Worker i serves its own metrics, on the port of --metrics-listen plus i. The kernel shares the connections out.
    """
    if settings.store == "memory:":
        raise StartError(
            "workers: got several with --store memory:, which one process keeps to itself; use sqlite: or redis:"
        )
    host, port = split_address(settings.listen, "--listen")
    with _reserve(host, port) as held:
        port = held.getsockname()[1]
        workers: list[subprocess.Popen[bytes]] = []
        stopping = threading.Event()

        def stop(number: int, frame: object) -> None:
            stopping.set()
            for worker in workers:
                worker.send_signal(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        for index in range(settings.workers):
            workers.append(_start(settings, index, f"{_bracketed(host)}:{port}"))
            if stopping.is_set():  # it came while this one was not in the list yet
                workers[-1].terminate()
        return _wait(workers, stopping)


def _wait(workers: list[subprocess.Popen[bytes]], stopping: threading.Event) -> int:
    """When one ends by itself, whichever and whatever the reason, the others are told to end too, and the status is
    the one's."""
    with ThreadPoolExecutor(len(workers), "worker") as threads:
        waiting = [threads.submit(worker.wait) for worker in workers]
        ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
        if stopping.is_set():
            ended, _ = wait(waiting)
        else:
            for worker in workers:
                if worker.poll() is None:
                    worker.terminate()
        return max(abs(status.result()) for status in ended)


def _start(settings: Settings, index: int, listen: str) -> subprocess.Popen[bytes]:
    host, port = split_address(settings.metrics_listen, "--metrics-listen")
    metrics_listen = f"{_bracketed(host)}:{port + index if port else 0}"
    own = replace(settings, listen=listen, metrics_listen=metrics_listen, workers=1)
    command = [sys.executable, "-m", "cellkeeper_service", "serve", WORKER_FLAG, *own.words()]
    return subprocess.Popen(command, env={**os.environ, STORE_VARIABLE: settings.store})


def _reserve(host: str, port: int) -> socket.socket:
    """Binds the port without listening, so that it stays the workers' while they come and go."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        held.bind((host, port))
    except OSError as error:
        held.close()
        raise StartError(f"cannot listen on {host}:{port} ({error}); choose another with --listen") from error
    return held


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
