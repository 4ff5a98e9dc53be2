"""Several server processes on one port. Each is a complete server; they share nothing but the store."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace

from cellkeeper_service.address import address_text, check_free
from cellkeeper_service.errors import StartError
from cellkeeper_service.logs import say
from cellkeeper_service.metrics import MergedMetrics, MetricsServer
from cellkeeper_service.server.as_worker import FAILED, WORKER_FLAG
from cellkeeper_service.server.config import STORE_VARIABLE, Settings, split_address
from cellkeeper_service.server.open_files import allow_connections
from cellkeeper_service.server.process_limits import ADVICE, check_threads
from cellkeeper_service.signals import ENDING, end_before_serving

log = logging.getLogger(__name__)

PARENT_THREADS = 3
"""For each worker: two that read what it says, one that waits for it."""
WHO_KILLS = "if memory ran out, the kernel sent it, and its log says so"


def serve_workers(settings: Settings) -> int:
    """Starts settings.workers processes for each of settings.devices, forwards SIGTERM, SIGINT and SIGHUP to them, and
    waits for them. Returns the exit status. Raises StartError, also for what a worker could not start with. If signals
    ended all workers before they served, they end this process in the same way.

    The kernel distributes the connections. Each worker serves its metrics on a free port of 127.0.0.1, which it reports
    through a pipe. Their sums are served at --metrics-listen, once all workers serve.
    """
    devices = _each_once(settings.devices)
    if settings.store == "memory:":
        raise StartError(
            "workers: got several with --store memory:, which processes cannot share; use sqlite: or redis:"
        )
    allow_connections(settings)  # each worker asks again; but what none of them can start with is said once
    count = settings.workers * len(devices)
    check_threads(count + PARENT_THREADS * count)  # otherwise a worker could serve whose parent cannot wait for it
    merged = MergedMetrics(count)
    place = split_address(settings.metrics_listen, "--metrics-listen")
    probes = merged.why_dead, merged.why_not_ready
    with (
        _reserved(settings.listen, "--listen") as listen,
        _reserved(settings.http_listen, "--http-listen") if settings.http_listen else nullcontext("") as http_listen,
        closing(MetricsServer(merged.exposition, *place, *probes)) as metrics,
    ):
        own = replace(settings, listen=listen, http_listen=http_listen)
        workers: list[subprocess.Popen[str]] = []
        pipes: list[int] = []
        failures: list[str] = []
        stopping = threading.Event()

        def stop(number: int, frame: object) -> None:
            stopping.set()
            merged.end()
            for worker in workers:
                worker.send_signal(number)

        def reload(number: int, frame: object) -> None:
            for worker in workers:
                worker.send_signal(number)

        for number in ENDING:
            signal.signal(number, stop)
        signal.signal(signal.SIGHUP, reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # blocked since this process began
        for device in devices * settings.workers:
            worker, pipe = _start(replace(own, device=device))
            workers.append(worker)
            pipes.append(pipe)
            if stopping.is_set():  # the signal came before this worker was in the list
                workers[-1].terminate()
        say(f"metrics of all workers on {metrics.url}")
        with ThreadPoolExecutor(2 * len(workers), "output") as readers:
            for worker, pipe in zip(workers, pipes, strict=True):
                readers.submit(_relay, worker)
                readers.submit(_take_address, pipe, merged, failures)
            status = _wait(workers, stopping)
    if failures:
        raise StartError(failures[0])
    if stopping.is_set() and status - 128 in ENDING:
        end_before_serving(status - 128)
    return status


def _each_once(devices: list[str]) -> list[str]:
    """Returns the devices. Raises StartError if one of several is not cuda:N, or is listed twice."""
    for device in devices if len(devices) > 1 else ():
        if not device.startswith("cuda:"):
            raise StartError(f"device: got {','.join(devices)}, expected cuda:N for each of several devices")
        if devices.count(device) > 1:
            raise StartError(
                f"device: got {device} more than once; name it once, and use --workers for several processes on each"
            )
    return devices


def _relay(worker: subprocess.Popen[str]) -> None:
    """Copies a worker's output to stdout, without the lines that it does not take: see logs.Stream."""
    for line in worker.stdout or ():
        with suppress(OSError):
            print(line, end="", flush=True)


def _take_address(pipe: int, merged: MergedMetrics, failures: list[str]) -> None:
    """Waits for the URL of a worker's metrics, or why it does not start. Neither comes if the worker is killed."""
    with os.fdopen(pipe) as worker:
        line = worker.readline().rstrip("\n")
    if line.startswith(FAILED):
        failures.append(line.removeprefix(FAILED))
    elif line:
        merged.add(line)


def _wait(workers: list[subprocess.Popen[str]], stopping: threading.Event) -> int:
    """Waits for the workers, and returns the exit status.

    If a worker ends on its own, for whatever reason, the others are told to end too, and its status is returned: for a
    signal, 128 and its number, as a shell returns it. A worker says why it ends, but one that is killed cannot. One
    that is told to end before it serves ends by that signal: nothing is wrong, and only if all do so, it is the status.
    """
    with ThreadPoolExecutor(len(workers), "worker") as threads:
        waiting = {threads.submit(worker.wait): worker for worker in workers}
        ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
        if stopping.is_set():
            ended, _ = wait(waiting)
        for one in ended:
            if (number := -one.result()) > 0 and not (stopping.is_set() and number in ENDING):
                why = WHO_KILLS if number == signal.SIGKILL else signal.strsignal(number)
                log.error(
                    "worker %d was killed by signal %d (%s); the other workers end, too", waiting[one].pid, number, why
                )
        if not stopping.is_set():
            for worker in workers:
                if worker.poll() is None:
                    worker.terminate()
        statuses = [status if (status := one.result()) >= 0 else 128 - status for one in ended]
        told = {128 + number for number in ENDING} if stopping.is_set() else set()
        return max([status for status in statuses if status not in told] or statuses)


def _start(settings: Settings) -> tuple[subprocess.Popen[str], int]:
    """Starts a worker. Returns it, and the pipe on which it reports the URL of its metrics. Raises StartError if the
    limits do not allow another process."""
    own = replace(settings, metrics_listen="127.0.0.1:0", workers=1)
    command = [sys.executable, "-m", "cellkeeper_service", "serve", WORKER_FLAG]
    environment = {**os.environ, STORE_VARIABLE: settings.store}
    held_back = {signal.SIGHUP, *ENDING}  # they would kill a worker that has not installed its handlers yet
    signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
    told, telling = os.pipe()
    try:
        # Nothing is written to its stdin, which is closed when this process ends; then the worker ends too.
        worker = subprocess.Popen(
            [*command, str(telling), *own.words()],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[telling],
        )
        return worker, told
    except BlockingIOError as error:  # from fork
        raise StartError(f"processes: cannot start another ({error}); {ADVICE}") from error
    finally:
        os.close(telling)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held_back)


@contextmanager
def _reserved(address: str, flag: str) -> Iterator[str]:
    """Binds the port without listening, so that it stays reserved while workers come and go. Yields the address, with
    the port that was taken if it asked for a free one."""
    host, port = split_address(address, flag)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as held:
        try:
            check_free(host, port)  # SO_REUSEPORT would let this bind to the port of another server that sets it too
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind((host, port))
        except OSError as error:
            raise StartError(
                f"cannot listen on {address_text(host, port)} ({error}); choose another with {flag}"
            ) from error
        yield address_text(host, held.getsockname()[1])
