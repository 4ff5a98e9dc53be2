"""Settings that the server refuses: flags, variables, addresses, options; and what it says to who asks for help."""

from __future__ import annotations

from dataclasses import Field
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.server.config import Settings, flag_of, setting_fields, split_address
from cellkeeper_service.server.setting import setting_of

from .launch import program, serve


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
