"""Several server processes on one port: each is a server of its own, and the store keeps them in agreement."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace

from cellkeeper_service.config import STORE_VARIABLE, Settings, split_address
from cellkeeper_service.errors import StartError
from cellkeeper_service.logs import say
from cellkeeper_service.metrics import MergedMetrics, MetricsServer

WORKER_FLAG = "--as-worker"
METRICS_LINE = re.compile(r'(?:^|"message": ")metrics on ([^\s"]+)')


def serve_workers(settings: Settings) -> int:
    """Starts settings.workers processes and waits for them; SIGTERM and SIGHUP go on to each. Returns the exit status.

    The kernel shares the connections out. Each worker's metrics are on a free port of 127.0.0.1, which it prints; their
    sums are where --metrics-listen says, once all of them serve.
    """
    if settings.store == "memory:":
        raise StartError(
            "workers: got several with --store memory:, which one process keeps to itself; use sqlite: or redis:"
        )
    host, port = split_address(settings.listen, "--listen")
    merged = MergedMetrics(settings.workers)
    place = split_address(settings.metrics_listen, "--metrics-listen")
    probes = merged.why_dead, merged.why_not_ready
    with _reserve(host, port) as held, closing(MetricsServer(merged.exposition, *place, *probes)) as metrics:
        port = held.getsockname()[1]
        workers: list[subprocess.Popen[str]] = []
        stopping = threading.Event()

        def stop(number: int, frame: object) -> None:
            stopping.set()
            merged.end()
            for worker in workers:
                worker.send_signal(number)

        def reload(number: int, frame: object) -> None:
            for worker in workers:
                worker.send_signal(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        signal.signal(signal.SIGHUP, reload)
        for _ in range(settings.workers):
            workers.append(_start(settings, f"{_bracketed(host)}:{port}"))
            if stopping.is_set():  # it came while this one was not in the list yet
                workers[-1].terminate()
        say(f"metrics of all workers on {metrics.url}")
        with ThreadPoolExecutor(len(workers), "output") as readers:
            for worker in workers:
                readers.submit(_relay, worker, merged)
            return _wait(workers, stopping)


def _relay(worker: subprocess.Popen[str], merged: MergedMetrics) -> None:
    """Prints what the worker prints, and notes where it says that its metrics are."""
    for line in worker.stdout or ():
        print(line, end="", flush=True)
        if found := METRICS_LINE.search(line):
            merged.add(found.group(1))


def _wait(workers: list[subprocess.Popen[str]], stopping: threading.Event) -> int:
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


def _start(settings: Settings, listen: str) -> subprocess.Popen[str]:
    own = replace(settings, listen=listen, metrics_listen="127.0.0.1:0", workers=1)
    command = [sys.executable, "-m", "cellkeeper_service", "serve", WORKER_FLAG, *own.words()]
    environment = {**os.environ, STORE_VARIABLE: settings.store}
    held_back = {signal.SIGHUP}  # it would end a worker that has not got as far as to look for it
    signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
    try:
        # Nothing is written to its stdin: that ends when this process does, and the worker ends then.
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held_back)


def _reserve(host: str, port: int) -> socket.socket:
    """Binds the port without listening, so that it stays the workers' while they come and go."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        if port:  # another server shares its port with its own kind: it must not take this for one
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        held.close()
        raise StartError(f"cannot listen on {host}:{port} ({error}); choose another with --listen") from error
    return held


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
