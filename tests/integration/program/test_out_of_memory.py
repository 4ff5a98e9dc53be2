"""A server that may not take the memory that its settings ask for ends in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from testing.bundles import make_bundle

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
        (550_000, "threads: cannot start "),  # where gRPC would wait for its own for ever, in two starts of three
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_too_little_address_space_is_refused_in_one_line(
    tmp_path: Path, limit_kib: int, says: str, workers: int
) -> None:
    bundle = make_bundle(tmp_path / "m", name="m")
    limited = ["bash", "-c", f'ulimit -v {limit_kib} && exec "$@"', "bash", sys.executable, "-m", "cellkeeper_service"]
    ports = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", f"--store=sqlite:{tmp_path / 's.db'}"]
    words = [*limited, "serve", str(bundle), *ports, "--device=cpu", f"--workers={workers}"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=END_TIMEOUT_S, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert says in lines[0]
    assert "ulimit -v" in lines[0]
