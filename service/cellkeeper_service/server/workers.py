"""Several server processes on one port: each is a server of its own, and the store keeps them in agreement."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace

from cellkeeper_service.errors import StartError
from cellkeeper_service.logs import say
from cellkeeper_service.metrics import MergedMetrics, MetricsServer
from cellkeeper_service.server.config import STORE_VARIABLE, Settings, split_address

WORKER_FLAG = "--as-worker"
"""Followed by the number of the pipe on which a worker tells its parent, in one line, where its metrics are."""


def serve_workers(settings: Settings) -> int:
    """Starts settings.workers processes for each of settings.devices and waits for them; SIGTERM and SIGHUP go on to
    each. Returns the exit status.

    The kernel shares the connections out. Each worker's metrics are on a free port of 127.0.0.1, which it tells by a
    pipe; their sums are where --metrics-listen says, once all of them serve.
    """
    devices = _each_once(settings.devices)
    if settings.store == "memory:":
        raise StartError(
            "workers: got several with --store memory:, which one process keeps to itself; use sqlite: or redis:"
        )
    host, port = split_address(settings.listen, "--listen")
    merged = MergedMetrics(settings.workers * len(devices))
    place = split_address(settings.metrics_listen, "--metrics-listen")
    probes = merged.why_dead, merged.why_not_ready
    with (
        _reserve(host, port, "--listen") as held,
        _reserve_http(settings) as held_http,
        closing(MetricsServer(merged.exposition, *place, *probes)) as metrics,
    ):
        own = replace(settings, listen=_address(host, held))
        if held_http is not None:
            own = replace(own, http_listen=_address(split_address(settings.http_listen, "--http-listen")[0], held_http))
        workers: list[subprocess.Popen[str]] = []
        pipes: list[int] = []
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
        for device in devices * settings.workers:
            worker, pipe = _start(replace(own, device=device))
            workers.append(worker)
            pipes.append(pipe)
            if stopping.is_set():  # it came while this one was not in the list yet
                workers[-1].terminate()
        say(f"metrics of all workers on {metrics.url}")
        with ThreadPoolExecutor(2 * len(workers), "output") as readers:
            for worker, pipe in zip(workers, pipes, strict=True):
                readers.submit(_relay, worker)
                readers.submit(_take_address, pipe, merged)
            return _wait(workers, stopping)


def from_parent(words: Sequence[str]) -> tuple[list[str], int | None]:
    """The words without WORKER_FLAG, and the pipe behind it; None: this process is no worker."""
    for at, word in enumerate(words[:-1]):
        if word == WORKER_FLAG and words[at + 1].isdecimal():
            return [*words[:at], *words[at + 2 :]], int(words[at + 1])
    return list(words), None


def tell_parent(pipe: int, metrics_url: str) -> None:
    """Called once, by a worker."""
    with os.fdopen(pipe, "w") as parent:
        print(metrics_url, file=parent)


def _each_once(devices: list[str]) -> list[str]:
    """Raises StartError unless the devices of a list are all named, and once each."""
    for device in devices if len(devices) > 1 else ():
        if not device.startswith("cuda:"):
            raise StartError(f"device: got {','.join(devices)}, expected cuda:N for each of several")
        if devices.count(device) > 1:
            raise StartError(
                f"device: got {device} more than once; name it once, and --workers has several processes on each"
            )
    return devices


def _relay(worker: subprocess.Popen[str]) -> None:
    """Prints what the worker prints."""
    for line in worker.stdout or ():
        print(line, end="", flush=True)


def _take_address(pipe: int, merged: MergedMetrics) -> None:
    """Notes where a worker tells that its metrics are. It tells nothing if it ends before it serves."""
    with os.fdopen(pipe) as worker:
        if line := worker.readline():
            merged.add(line.rstrip("\n"))


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


def _start(settings: Settings) -> tuple[subprocess.Popen[str], int]:
    """The worker, and the pipe on which it tells where its metrics are."""
    own = replace(settings, metrics_listen="127.0.0.1:0", workers=1)
    command = [sys.executable, "-m", "cellkeeper_service", "serve", WORKER_FLAG]
    environment = {**os.environ, STORE_VARIABLE: settings.store}
    held_back = {signal.SIGHUP}  # it would end a worker that has not got as far as to look for it
    signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
    told, telling = os.pipe()
    try:
        # Nothing is written to its stdin: that ends when this process does, and the worker ends then.
        worker = subprocess.Popen(
            [*command, str(telling), *own.words()],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[telling],
        )
        return worker, told
    finally:
        os.close(telling)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held_back)


def _reserve_http(settings: Settings) -> AbstractContextManager[socket.socket | None]:
    """The same for the front for HTTP, where there is one."""
    if not settings.http_listen:
        return nullcontext()
    return _reserve(*split_address(settings.http_listen, "--http-listen"), "--http-listen")


def _reserve(host: str, port: int, flag: str) -> socket.socket:
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
        raise StartError(f"cannot listen on {host}:{port} ({error}); choose another with {flag}") from error
    return held


def _address(host: str, held: socket.socket) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{held.getsockname()[1]}"
