"""The addresses that the program prints are those that settings and clients take."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
from cellkeeper import Client

from .launch import END_TIMEOUT_S, command, environment, serve

OPTIONS = ["--metrics-listen=[::1]:0", "--http-listen=[::1]:0"]


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize("workers", [1, 2])
def test_ipv6_addresses_have_brackets(counting_model: Path, tmp_path: Path, workers: int) -> None:
    store = f"--store=sqlite:{tmp_path / 's.db'}"
    words = command("serve", counting_model, store, "--listen=[::1]:0", *OPTIONS, f"--workers={workers}")
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            text = ""
            while "http on" not in text:
                line = process.stdout.readline()
                assert line, text
                text += line
            (target,) = set(re.findall(r"^listening on (.*)$", text, re.MULTILINE))
            assert re.fullmatch(r"\[::1\]:\d+", target)
            with Client(target) as client:
                assert client.session("a").step([1.0]).tolist() == [1.0]
            (url,) = set(re.findall(r"^http on (.*)$", text, re.MULTILINE))
            with urlopen(f"{url}v1/openapi.json", timeout=30) as answer:
                assert answer.status == 200
            taken = serve(counting_model, "--store=memory:", f"--listen={target}").line
            assert taken.startswith(f"cannot listen on {target} (")
        finally:
            process.terminate()
        assert process.wait(END_TIMEOUT_S) == 0


@pytest.mark.parametrize("setting", ["listen", "metrics-listen", "http-listen"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_ipv6_address_in_use_is_named_with_brackets(
    counting_model: Path, tmp_path: Path, setting: str, workers: int
) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        place = f"[::1]:{taken.getsockname()[1]}"
        store = f"--store=sqlite:{tmp_path / 's.db'}"
        line = serve(counting_model, store, f"--{setting}={place}", f"--workers={workers}").line
    assert f"cannot listen on {place} (" in line


@pytest.mark.parametrize("workers", [1, 2])
def test_without_a_host_it_listens_on_all_addresses(counting_model: Path, tmp_path: Path, workers: int) -> None:
    """gRPC refused it in a line of its own, beside the server's, which asked whether the port was taken."""
    store = f"--store=sqlite:{tmp_path / 's.db'}"
    words = command("serve", counting_model, store, "--listen=:0", "--insecure-listen", f"--workers={workers}")
    with subprocess.Popen(
        [*words, "--metrics-listen=127.0.0.1:0"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            found = None
            while found is None:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                found = re.fullmatch(r"listening on :(\d+)\n", line)
            for host in ("127.0.0.1", "[::1]"):
                with Client(f"{host}:{found.group(1)}") as client:
                    assert client.session(host).step([1.0]).tolist() == [1.0]
            taken = serve(counting_model, "--store=memory:", f"--listen=:{found.group(1)}", "--insecure-listen").line
            assert taken.startswith(f"cannot listen on :{found.group(1)} (")
        finally:
            process.terminate()
        process.stdout.read()
        assert (process.wait(END_TIMEOUT_S), process.stderr.read()) == (0, "")
