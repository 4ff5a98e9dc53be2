"""Which addresses may be listened on without authentication, and settings that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.server.config import Settings
from cellkeeper_service.server.listening import check_access, is_loopback

from tests.integration.program.launch import serve


def settings(*words: str) -> Settings:
    return Settings.read(["model", *words], {})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("", False),
        ("::", False),
        ("10.0.0.1", False),
        ("no.such.host.invalid", False),
    ],
)
def test_what_only_this_machine_can_reach(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("words", [["--tokens=t"], ["--tls-cert=c", "--tls-key=k", "--tls-client-ca=a"]])
def test_who_asks_may_listen_anywhere(words: list[str]) -> None:
    check_access(settings("--listen=0.0.0.0:1", *words))
    check_access(settings("--listen=0.0.0.0:1", "--insecure-listen"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--listen=0.0.0.0:1"], "--listen: 0.0.0.0:1 can be reached from other machines"),
        (["--listen=[::]:1"], "--insecure-listen"),
        (["--listen=0.0.0.0:1", "--tls-cert=c", "--tls-key=k"], "can be reached"),  # TLS alone authenticates nobody
        (["--tls-cert=c"], "tls_cert, tls_key: got one without the other"),
        (["--tls-client-ca=c"], "tls_client_ca: got it without tls_cert"),
        (["--tenant-sessions=5"], "give --max-ttl-ms"),
        (["--max-ttl-ms=5", "--default-ttl-ms=6"], "expected at most max_ttl_ms (5)"),
    ],
)
def test_what_is_refused(words: list[str], text: str) -> None:
    with pytest.raises(StartError) as caught:
        check_access(settings(*words))
    assert text in str(caught.value)


@pytest.mark.parametrize("workers", ["--workers=1", "--workers=2"])
def test_the_program_refuses_to_listen_for_others_by_mistake(
    counting_model: Path, tmp_path: Path, workers: str
) -> None:
    line = serve(counting_model, f"--store=sqlite:{tmp_path / 's.db'}", "--listen=0.0.0.0:0", workers).line
    assert line.startswith("--listen: 0.0.0.0:0 can be reached from other machines")


def test_a_token_file_that_is_none(counting_model: Path, tmp_path: Path) -> None:
    line = serve(counting_model, "--store=memory:", f"--tokens={tmp_path / 'none'}").line
    assert line.startswith(f"tokens: cannot read {tmp_path / 'none'}: ")
    assert line.endswith("; `cellkeeper-server token new` prints an entry for it")
