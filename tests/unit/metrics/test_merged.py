"""What the process that starts the workers serves for them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from cellkeeper_service.metrics import MergedMetrics, MetricsServer


@pytest.fixture
def worker() -> Iterator[MetricsServer]:
    made = MetricsServer(lambda: b"# TYPE steps counter\nsteps_total 2.0\n", "127.0.0.1", 0, lambda: "", lambda: "")
    yield made
    made.close()


@contextmanager
def cut_short(answer: bytes) -> Iterator[str]:
    """A worker that ends while it answers. Yields the URL of its metrics."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"


def merged(*urls: str) -> MergedMetrics:
    made = MergedMetrics(len(urls))
    for url in urls:
        made.add(url)
    return made


def test_workers_are_asked_directly_whatever_proxy_the_environment_names(
    worker: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    both = merged(worker.url, worker.url)
    assert b"steps_total 4.0" in both.exposition()
    assert (both.why_dead(), both.why_not_ready()) == ("", "")


@pytest.mark.parametrize("name", ["cellkeeper_certificate_expiry_timestamp_seconds", "process_start_time_seconds"])
def test_of_a_time_the_earliest_is_shown(name: str) -> None:
    workers = [
        MetricsServer(
            lambda value=value: f"# TYPE {name} gauge\n{name} {value}\n".encode(),  # type: ignore[misc]
            "127.0.0.1",
            0,
            str,
            str,
        )
        for value in (30.0, 20.0, 40.0)
    ]
    try:
        assert f"{name} 20.0\n".encode() in merged(*(worker.url for worker in workers)).exposition()
    finally:
        for worker in workers:
            worker.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsteps", b"steps\r\n\r\n"])
@pytest.mark.parametrize("probe", [MergedMetrics.why_dead, MergedMetrics.why_not_ready])
def test_an_answer_that_is_cut_short_is_none(answer: bytes, probe: Callable[[MergedMetrics], str]) -> None:
    with cut_short(answer) as url, pytest.raises(OSError, match=url):
        merged(url).exposition()
    with cut_short(answer) as url:
        assert probe(merged(url)).startswith("worker 1: ")


def test_a_refusal_without_a_reason_is_a_refusal() -> None:
    with cut_short(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n") as url:
        assert "503" in merged(url).why_dead()
