"""When the server's certificate expires, in the log and the metrics, and files that were changed into unusable ones."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest
from cellkeeper_service.rpc.certificate_dates import dates_of
from cellkeeper_service.rpc.tls import Certificates
from cryptography import x509

from testing.forked_server import ForkedServer
from tests.integration.access.certificates import Authority

from .tenants import entry
from .test_tls import swap

EXPIRY, FAILED = "cellkeeper_certificate_expiry_timestamp_seconds", "cellkeeper_last_reload_failed"
PATIENCE_S = 30.0


@pytest.mark.parametrize("days", [-2, 1, 400, 365 * 30, 365 * 60])  # from 2050 on, times have another type
def test_the_dates_of_a_certificate(tmp_path: Path, days: int) -> None:
    cert, key = Authority(tmp_path).issue("a", days=days)
    expected = x509.load_pem_x509_certificate(cert.read_bytes())
    for text in (cert.read_text(), key.read_text() + cert.read_text() + (tmp_path / "authority.pem").read_text()):
        dates = dates_of(text)
        assert dates.not_before == expected.not_valid_before_utc.timestamp()
        assert dates.not_after == expected.not_valid_after_utc.timestamp()


def test_what_is_no_certificate_has_no_dates(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("a")
    text = cert.read_text()
    lines = text.splitlines()
    for broken in (
        "",
        key.read_text(),
        text[:-30],
        "\n".join([lines[0], *lines[2:]]),
        "\n".join([*lines[:3], lines[-1]]),
    ):
        with pytest.raises(ValueError, match=r"."):
            dates_of(broken)
    with pytest.raises(ValueError, match="its certificate ends too early"):
        dates_of(f"{lines[0]}\nMAA=\n{lines[-1]}")  # an empty sequence


@pytest.mark.parametrize(
    ("days", "now", "words"),
    [
        (-1, 0.0, "expired on "),
        (10, 0.0, "in 10.0 days"),
        (100, 0.0, ""),
        (100, -4 * 86_400.0, "is not valid before "),  # the tests' certificates begin three days ago
    ],
)
def test_a_certificate_that_clients_refuse_or_soon_will_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, days: int, now: float, words: str
) -> None:
    """At the start, and when it replaces another."""
    authority = Authority(tmp_path)
    (good, good_key), (cert, key) = authority.issue("good", days=100), authority.issue("a", days=days)
    at = [0.0]
    start = time.time()
    with caplog.at_level(logging.WARNING):
        Certificates(str(cert), str(key), "", lambda: at[0], lambda: start + now)
        assert words in caplog.text
        assert len(caplog.records) == bool(words)
        caplog.clear()
        certificates = Certificates(str(good), str(good_key), "", lambda: at[0], lambda: start)
        assert not caplog.records
        swap(good_key, key.read_bytes())
        swap(good, cert.read_bytes())
        certificates._unix_time = lambda: start + now
        at[0] += 2
        assert certificates.expiry() == dates_of(cert.read_text()).not_after
        assert words in caplog.text
        assert len(caplog.records) == bool(words)


def test_the_metrics_of_a_server_whose_files_change(tmp_path: Path, counting_model: Path) -> None:
    """Nobody connects meanwhile: the scrape itself notices."""
    authority = Authority(tmp_path)
    (cert, key), (new_cert, new_key) = authority.issue("server", days=50), authority.issue("renewed", days=100)
    tokens = tmp_path / "tokens"
    tokens.write_text(entry("acme", "step")[1])
    good = tokens.read_bytes()
    options = ["--tls-cert", str(cert), "--tls-key", str(key), "--tokens", str(tokens)]
    with ForkedServer([counting_model], "memory:", options) as server:

        def until(file: str, failed: float) -> None:
            end = time.monotonic() + PATIENCE_S
            while server.metric(FAILED, file=file) != failed:
                assert time.monotonic() < end, file

        assert server.metrics().count(f"{FAILED}{{") == 3
        assert server.metric(FAILED) == 0
        before = server.metric(EXPIRY)
        assert before == dates_of(cert.read_text()).not_after
        old, old_times = key.read_bytes(), os.stat(key)
        os.rename(key, tmp_path / "aside")
        swap(key, new_key.read_bytes())
        until("certificate", 1)
        assert server.metric(EXPIRY) == before
        os.rename(tmp_path / "aside", key)  # the previous one is back
        assert (key.read_bytes(), os.stat(key).st_ino) == (old, old_times.st_ino)
        until("certificate", 0)
        swap(key, new_key.read_bytes())
        swap(cert, new_cert.read_bytes())
        end = time.monotonic() + PATIENCE_S
        while server.metric(EXPIRY) == before:
            assert time.monotonic() < end
        assert server.metric(EXPIRY) == dates_of(new_cert.read_text()).not_after
        until("certificate", 0)
        os.rename(tokens, tmp_path / "tokens aside")
        until("tokens", 1)
        os.rename(tmp_path / "tokens aside", tokens)
        until("tokens", 0)
        swap(tokens, b"nonsense")
        until("tokens", 1)
        swap(tokens, good)
        until("tokens", 0)
        assert server.metric(FAILED) == 0
