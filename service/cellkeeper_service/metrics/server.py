"""The HTTP port for Prometheus and for health checks."""

from __future__ import annotations

import socket
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from cellkeeper_service.errors import StartError

IDLE_SECONDS = 30.0


class MetricsServer:
    """Serves /metrics and /healthz from threads of its own, from construction until `close`."""

    def __init__(self, exposition: Callable[[], bytes], host: str, port: int, healthy: Callable[[], bool]) -> None:
        """exposition: what /metrics answers with; 503 where it raises OSError. port 0 takes a free one; see `url`.
        healthy: what /healthz answers with, 200 or 503.

        Raises StartError if it cannot listen there.
        """
        try:
            # resolved first: an IPv6 address needs another kind of socket
            family, _, _, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
            self._server = _Server(family, (str(address[0]), int(address[1])), exposition, healthy)
        except OSError as error:
            raise StartError(
                f"metrics: cannot listen on {host}:{port} ({error}); choose another --metrics-listen"
            ) from error
        self.host = host
        self.port = int(self._server.server_address[1])
        self._thread = Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the metrics are: "http://127.0.0.1:9464/metrics"."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stops listening. Safe to call twice."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, family: int, address: tuple[str, int], exposition: Callable[[], bytes], healthy: Callable[[], bool]
    ) -> None:
        self.address_family = family
        self.exposition = exposition
        self.healthy = healthy
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer_metrics()
        elif path == "/healthz":
            healthy = self.server.healthy()
            status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, "text/plain; charset=utf-8", b"serving\n" if healthy else b"not serving\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"try /metrics or /healthz\n")

    def _answer_metrics(self) -> None:
        try:
            body = self.server.exposition()
        except OSError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", f"{error}\n".encode())
        else:
            self._answer(HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, body)

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not logged."""
