"""What the server refuses to start with: status 1, and one line that says what to do."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import Field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.rpc.grpc_core import TESTED
from cellkeeper_service.server.config import Settings, flag_of, setting_fields, split_address
from cellkeeper_service.server.setting import setting_of

from testing.bundles import counting_bundle, make_bundle
from testing.redis_server import RedisServer

from .launch import Ended, environment, program, serve

PASSWORD = "s3cret-w0rd"


@pytest.fixture
def damaged(counting_model: Path, tmp_path: Path) -> Path:
    """A copy of a bundle, to be damaged."""
    return Path(shutil.copytree(counting_model, tmp_path / "copy"))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


# ------------------------------------------------------------------------------------------ bundles


def test_no_such_folder(tmp_path: Path) -> None:
    line = serve(tmp_path / "nowhere").line
    assert line == f"{tmp_path / 'nowhere'}: no such folder; give the folder of a model bundle"


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_config(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(file.read_text()[:-9])


def unknown_key(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "dropout": 0.5}))


def two_ways(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "bidirectional": True}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_weights, ("model.safetensors",)),
        (no_weights, ("model.safetensors",)),
        (cut_config, ("config.json", "JSON")),
        (unknown_key, ("config.json", "dropout")),
        (two_ways, ("bidirectional",)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_bundle(damaged: Path, damage: Callable[[Path], None], words: tuple[str, ...]) -> None:
    damage(damaged)
    line = serve(damaged, "--store=memory:").line
    for word in (str(damaged), *words):
        assert word in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_workers_say_once_why_they_do_not_start(damaged: Path, tmp_path: Path, log_format: str) -> None:
    cut_config(damaged)
    store = f"--store=sqlite:{tmp_path / 's.db'}"
    ended = serve(damaged, store, "--workers=4", f"--log-format={log_format}")
    (line,) = ended.err.splitlines()
    assert ended.status == 1
    assert f"{damaged / 'config.json'}: not JSON" in line
    assert line.startswith("{") == (log_format == "json")


def test_the_same_version_twice(counting_model: Path) -> None:
    line = serve(counting_model, counting_model, "--store=memory:").line
    assert line == "model count: got the same version twice; name each folder once"


def test_two_versions_that_look_different_from_outside(counting_model: Path, tmp_path: Path) -> None:
    other = counting_bundle(tmp_path / "other", features=2)
    line = serve(counting_model, other, "--store=memory:").line
    assert line.startswith("model count: versions ")
    assert line.endswith("have different tensors; serve them under different names")


def test_no_room_for_one_batch(tmp_path: Path) -> None:
    large = make_bundle(tmp_path / "large", hidden_size=512, num_layers=2, head=())
    line = serve(large, "--store=memory:", "--arena-mib=1").line
    assert line.startswith(
        "arena_mib: 1 MiB hold 64 hot sessions of m, expected at least max_batch (256); raise --arena-mib"
    )


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


# ------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("--max-batch=0", "--max-batch: got '0', expected a whole number of 1 or more"),
        ("--listen=localhost", "--listen: got 'localhost', expected host:port, with a port of up to 65535"),
        ("--metrics-listen=9464", "--metrics-listen: got '9464', expected host:port, with a port of up to 65535"),
        ("--precision=bf16", "precision: got bf16, expected fp32 for count: it runs on the CPU"),
        (
            "--device=cuda:0,cuda:0",
            "device: got cuda:0 more than once; name it once, and use --workers for several processes on each",
        ),
        ("--device=cuda:0,cpu", "device: got cuda:0,cpu, expected cuda:N for each of several devices"),
        ("--device=tpu", "device: got tpu, expected auto, cpu or cuda:0"),
        ("--kserve-layout=count=batch", "kserve_layout: got 'count=batch', expected none without --kserve on"),
        ("--kserve-names=count/X=input", "kserve_names: got 'count/X=input', expected none without --kserve on"),
        ("--max-log-steps=1000", "max_log_steps: got 1000, expected at least twice max_chunk_steps (1024)"),
    ],
)
def test_a_flag_that_cannot_be_taken(counting_model: Path, word: str, line: str) -> None:
    assert serve(counting_model, "--store=memory:", word).line == line


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("--threads=many", "--threads: got 'many', expected a whole number of 1 or more"),
        ("--default-ttl-ms=-1", "--default-ttl-ms: got '-1', expected a whole number of 0 or more"),
        (
            "--default-ttl-ms=316224000001",
            "--default-ttl-ms: got '316224000001', expected at most 316224000000 (ten years)",
        ),
        (
            "--max-ttl-ms=99999999999999999999",
            "--max-ttl-ms: got '99999999999999999999', expected at most 316224000000 (ten years)",
        ),
        ("--threads=1025", "--threads: got '1025', expected at most 1024"),
        ("--max-batch=65537", "--max-batch: got '65537', expected at most 65536"),
        ("--max-frame-items=2147483648", "--max-frame-items: got '2147483648', expected at most 2147483647"),
        ("--max-rpcs=" + 5000 * "9", f"--max-rpcs: got '{40 * '9'}'..., expected at most 2147483647"),
        ("--max-rpcs=٣", "--max-rpcs: got '٣', expected a whole number of 1 or more"),
        (
            "--kserve-end-ttl-ms=316224000001",
            "--kserve-end-ttl-ms: got '316224000001', expected at most 316224000000 (ten years)",
        ),
        ("--precision=fp16", "--precision: got 'fp16', expected fp32, tf32 or bf16"),
        ("--log-level=loud", "--log-level: got 'loud', expected debug, info, warning or error"),
        ("--log-format=xml", "--log-format: got 'xml', expected text or json"),
        ("--tracing=yes", "--tracing: got 'yes', expected auto, otlp or none"),
        ("--kserve=maybe", "--kserve: got 'maybe', expected on or off"),
        ("--tokens=", "--tokens: got nothing, expected a file; leave --tokens out if there is none"),
        ("--tls-cert=", "--tls-cert: got nothing, expected a file; leave --tls-cert out if there is none"),
        ("--tls-key=", "--tls-key: got nothing, expected a file; leave --tls-key out if there is none"),
        (
            "--tls-client-ca=",
            "--tls-client-ca: got nothing, expected a file; leave --tls-client-ca out if there is none",
        ),
    ],
)
def test_a_flag_that_cannot_be_read(word: str, line: str) -> None:
    """The tests that start a process show the exit status."""
    with pytest.raises(StartError) as refused:
        Settings.read(["m", "--store=memory:", word], {})
    assert str(refused.value) == line


@pytest.mark.parametrize("item", [item for item in setting_fields() if type(item.default) is int], ids=flag_of)
def test_every_number_has_bounds_and_takes_them(item: Field[Any]) -> None:
    about = setting_of(item)
    for number in (about.least, about.most, f"{about.most:030}"):
        taken = Settings.read(["m", f"{flag_of(item)}={number}"], {})
        assert getattr(taken, item.name) == int(number)
    for number in (about.least - 1, about.most + 1):
        with pytest.raises(StartError, match=flag_of(item)):
            Settings.read(["m", f"{flag_of(item)}={number}"], {})


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:50051", ("::1", 50051)),
        (":65535", ("", 65535)),
        ("localhost:65536", "host:port"),
        ("localhost:٣", "host:port"),
        ("localhost:" + 5000 * "9", "host:port"),
        ("::1:5005", "an IPv6 address in brackets"),  # gRPC reads an address of its own, and port 443
        ("[::1:5005", "an IPv6 address in brackets"),
    ],
)
def test_addresses(address: str, expected: tuple[str, int] | str) -> None:
    if isinstance(expected, tuple):
        assert split_address(address, "--listen") == expected
        return
    with pytest.raises(StartError, match=f"--listen: got .*, expected {expected}"):
        split_address(address, "--listen")


def test_a_variable_that_cannot_be_taken(counting_model: Path) -> None:
    line = serve(counting_model, "--store=memory:", variables={"CELLKEEPER_MAX_BATCHES": "1"}).line
    assert line == "CELLKEEPER_MAX_BATCHES: no such setting; `cellkeeper-server serve --help` lists them"


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("CELLKEEPER_MAX_BATCH", "1.5", "CELLKEEPER_MAX_BATCH: got '1.5', expected a whole number of 1 or more"),
        (
            "CELLKEEPER_ACCEPT_OTHER_NUMERICS",
            "maybe",
            "CELLKEEPER_ACCEPT_OTHER_NUMERICS: got 'maybe', expected true or false",
        ),
        (
            "CELLKEEPER_TOKENS",
            "",
            "CELLKEEPER_TOKENS: got nothing, expected a file; leave CELLKEEPER_TOKENS out if there is none",
        ),
    ],
)
def test_a_variable_that_cannot_be_read(variable: str, value: str, line: str) -> None:
    with pytest.raises(StartError) as refused:
        Settings.read(["m", "--store=memory:"], {variable: value})
    assert str(refused.value) == line


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "m", "--listen=--"],
        ["serve", "m", "--threads=--"],
        ["serve", "m", "--tokens=--"],
        ["token", "new", "--rights=step", "--tenant=--"],
        ["import", "onnx", "a", "b", "--input-shape=--"],
    ],
)
def test_an_option_whose_value_is_what_ends_options(words: list[str]) -> None:
    """argparse makes an empty list of it, up to Python 3.12."""
    ended = program(*words)
    flag = words[-1].partition("=")[0]
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == f"cellkeeper-server: {flag}: got '--', expected a value\n"


def test_usage_errors() -> None:
    for words in (["serve", "--no-such-flag", "m"], ["serve", "--max-bat=1", "m"], ["start"]):
        ended = program(*words)
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith("usage: cellkeeper-server")
    assert ended.err.endswith("cellkeeper-server: got 'start', expected one of the above\n")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_that_is_asked_for_goes_to_stdout(word: str) -> None:
    ended = program(word)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("usage: cellkeeper-server serve MODEL...")


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
