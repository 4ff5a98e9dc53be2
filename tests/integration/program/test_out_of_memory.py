"""A server that may not take the memory that its settings ask for ends in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cellkeeper import Client

from testing.bundles import make_bundle
from testing.server_process import ServerProcess

from .launch import END_TIMEOUT_S, environment

LIMIT_KIB = 2_200_000  # of address space: libraries and threads take a third of it


@pytest.mark.parametrize(("workers", "log_format"), [(1, "text"), (1, "json"), (2, "text")])
def test_an_arena_beyond_the_memory_limit_is_refused_in_one_line(tmp_path: Path, workers: int, log_format: str) -> None:
    bundle = make_bundle(tmp_path / "m", name="m", hidden_size=512, num_layers=1)
    ports = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", f"--store=sqlite:{tmp_path / 's.db'}"]
    limited = ["bash", "-c", f'ulimit -v {LIMIT_KIB} && exec "$@"', "bash", sys.executable, "-m", "cellkeeper_service"]
    sizes = ["--arena-mib=2000", "--max-batch=4", "--device=cpu"]
    words = [*limited, "serve", str(bundle), *ports, *sizes, f"--workers={workers}", f"--log-format={log_format}"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert "out of memory: cannot keep 256000 hot sessions of m (Unable to allocate 1.95 GiB" in lines[0]
    assert "raise the process's memory limit, or lower --arena-mib or --max-batch" in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("limit_kib", "says"),
    [
        (200_000, "memory: cannot reserve 320 MiB of address space, which the server needs besides its model"),
        (550_000, "threads: cannot start "),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_too_little_address_space_is_refused_in_one_line(
    tmp_path: Path, limit_kib: int, says: str, workers: int
) -> None:
    bundle = make_bundle(tmp_path / "m", name="m")
    limited = ["bash", "-c", f'ulimit -v {limit_kib} && exec "$@"', "bash", sys.executable, "-m", "cellkeeper_service"]
    ports = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", f"--store=sqlite:{tmp_path / 's.db'}"]
    threads = "--store-threads=64"  # whose stacks take 512 MiB
    words = [*limited, "serve", str(bundle), *ports, "--device=cpu", threads, f"--workers={workers}"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert says in lines[0]
    assert "ulimit -v" in lines[0]


def test_a_server_with_address_space_for_its_stacks_serves(tmp_path: Path) -> None:
    """64 MiB more for each thread, which malloc would reserve, do not fit in."""
    bundle = make_bundle(tmp_path / "m", name="m")
    limited = ["bash", "-c", 'ulimit -v 700000 && exec "$@"', "bash", sys.executable, "-m", "cellkeeper_service"]
    with (
        ServerProcess([bundle], f"sqlite:{tmp_path / 's.db'}", ["--device=cpu"], program=limited) as server,
        Client(server.target) as client,
    ):
        assert client.session("s", model="m").step(np.zeros(3, np.float32)).shape == (1,)


def test_too_little_address_space_for_many_workers_is_refused_before_any_starts(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "m", name="m")
    limited = ["bash", "-c", 'ulimit -v 700000 && exec "$@"', "bash", sys.executable, "-m", "cellkeeper_service"]
    words = [*limited, "serve", str(bundle), "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--workers=64"]
    store = f"--store=sqlite:{tmp_path / 's.db'}"
    done = subprocess.run(
        [*words, store], env=environment(), capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "threads: cannot start 256 (can't start new thread after " in line


ONE_THREAD = """
import resource, threading
from cellkeeper_service.errors import StartError
from cellkeeper_service.server.process_limits import naming_limits
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
threading.stack_size(64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20),) * 2)  # half a stack
try:
    with naming_limits():
        threading.Thread(target=print).start()
except StartError as error:
    print(error)
"""


ONE_PROCESS = """
import os, resource
from cellkeeper_service.errors import StartError
from cellkeeper_service.server.config import Settings
from cellkeeper_service.server.workers import _start
settings = Settings.read(["bundle"], {})
if os.getuid() == 0:
    os.setuid(65534)  # the limit does not hold for root
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    _start(settings)
except StartError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("script", "begin"),
    [
        (ONE_THREAD, "threads: cannot start another (can't start new thread); raise the limits on address space"),
        (ONE_PROCESS, "processes: cannot start another ([Errno 11] Resource temporarily unavailable); raise the "),
    ],
    ids=["thread", "process"],
)
def test_what_the_limits_do_not_allow_is_refused_in_one_line(script: str, begin: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=END_TIMEOUT_S,
        check=False,
    )
    (line,) = done.stdout.splitlines()
    assert line.startswith(begin)
