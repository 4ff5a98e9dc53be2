"""Packages, stores and ports that the server refuses to start with: status 1, and one line that says what to do."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from cellkeeper_service.rpc.grpc_core import TESTED

from testing.redis_server import RedisServer

from .launch import Ended, environment, serve

PASSWORD = "s3cret-w0rd"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


# ------------------------------------------------------------------------------------------ packages

WITHOUT = """
import sys
sys.modules['safetensors'] = None
from cellkeeper_service.program import main
main()
"""
WITH_ANOTHER_CORE = """
import sys
import grpc._cython
import grpc_reflection.v1alpha.reflection  # imports the core, too
from grpc._cython import cygrpc

names = vars(cygrpc)
{0}
from cellkeeper_service.program import main
main()
"""


def run_program(code: str, *words: str) -> Ended:
    """Runs a Python program that becomes `cellkeeper-server` with these words."""
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_only_the_client_is_installed(counting_model: Path) -> None:
    line = run_program(WITHOUT, "serve", str(counting_model), "--store=memory:").line
    assert line == "it needs safetensors; pip install 'cellkeeper[server]'"


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("del names['SendStatusFromServerOperation']", "SendStatusFromServerOperation"),
        ("names['Call'] = type('Call', (), dict(peer=None))", "Call.cancel"),
        ("sys.modules['grpc._cython.cygrpc'] = None; del grpc._cython.cygrpc", "BatchOperationEvent"),
    ],
    ids=["a name", "a method", "everything"],
)
def test_a_grpcio_whose_core_is_another(counting_model: Path, change: str, missing: str) -> None:
    line = run_program(WITH_ANOTHER_CORE.format(change), "serve", str(counting_model), "--store=memory:").line
    assert line == (
        f"grpcio {version('grpcio')} has no cygrpc.{missing}, which the server uses; "
        f"pip install 'cellkeeper[server]' 'grpcio{TESTED}'"
    )


# ------------------------------------------------------------------------------------------ stores


@pytest.mark.parametrize("url", [f"reddis://user:{PASSWORD}@127.0.0.1/0", f"redis:user:{PASSWORD}@127.0.0.1", ""])
def test_a_store_that_is_none(counting_model: Path, url: str) -> None:
    line = serve(counting_model, f"--store={url}").line
    assert line.startswith("store: got ")
    assert "sqlite:PATH, redis://HOST:PORT/DB" in line
    assert PASSWORD not in line


def test_a_sqlite_file_that_cannot_be_made(counting_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in serve(counting_model, f"--store=sqlite:{tmp_path / 'file' / 'x.db'}").line


def test_a_redis_that_does_not_answer(counting_model: Path, nobody: str) -> None:
    url = f"redis://:{PASSWORD}@{nobody}/0"
    line = serve(counting_model, f"--store={url}", "--store-timeout-ms=200").line
    assert "Redis cannot be reached" in line
    assert line.endswith("; start Redis, or correct the store's URL")
    assert PASSWORD not in line


def test_a_redis_that_may_evict(counting_model: Path) -> None:
    with RedisServer({"maxmemory-policy": "allkeys-lru", "appendonly": "no"}) as redis:
        line = serve(counting_model, f"--store={redis.url}").line
    assert "maxmemory-policy 'allkeys-lru'" in line
    assert "CONFIG SET maxmemory-policy noeviction" in line


def test_a_redis_with_another_password(counting_model: Path) -> None:
    with RedisServer({"appendonly": "no"}) as redis:
        with redis.client() as client:
            client.config_set("requirepass", "right")
        line = serve(counting_model, f"--store=redis://:{PASSWORD}@127.0.0.1:{redis.port}/0").line
    assert "Redis" in line
    assert PASSWORD not in line


def test_several_workers_need_a_store_that_they_share(counting_model: Path) -> None:
    assert serve(counting_model, "--store=memory:", "--workers=2").line.startswith(
        "workers: got several with --store memory:"
    )


# ------------------------------------------------------------------------------------------ ports


def test_a_port_that_is_taken(counting_model: Path, taken: int) -> None:
    line = serve(counting_model, "--store=memory:", f"--listen=127.0.0.1:{taken}").line
    assert line.startswith(f"cannot listen on 127.0.0.1:{taken} (")
    assert line.endswith("; choose another with --listen")


@pytest.mark.parametrize("flag", ["--listen", "--http-listen"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_is_taken_at_one_of_the_addresses_of_a_name(
    counting_model: Path, tmp_path: Path, flag: str, workers: int
) -> None:
    """On the others alone, clients that look at ::1 first would find another program."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        place = f"localhost:{taken.getsockname()[1]}"
        store = f"--store=sqlite:{tmp_path / 's.db'}"
        line = serve(counting_model, store, f"{flag}={place}", f"--workers={workers}").line
    assert line.startswith(f"cannot listen on {place} (")
    assert line.endswith(f"; choose another with {flag}")


def test_a_metrics_port_that_is_taken(counting_model: Path, taken: int) -> None:
    line = serve(counting_model, "--store=memory:", f"--metrics-listen=127.0.0.1:{taken}").line
    assert line.startswith(f"metrics: cannot listen on 127.0.0.1:{taken} ")
    assert line.endswith("choose another --metrics-listen")
