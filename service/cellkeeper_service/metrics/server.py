"""The metrics port: /metrics for Prometheus, /healthz (is it alive?) and /readyz (should it get requests?)."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from cellkeeper_service.address import address_text
from cellkeeper_service.errors import StartError

IDLE_SECONDS = 30.0
MOST_CONNECTIONS = 128
"""Each has a thread. One more ends the connection whose last request is longest ago, so that a probe is answered even
while others only hold connections open."""

Probe = Callable[[], str]
"""Returns why not; empty if all is well."""


class MetricsServer:
    """An HTTP server that runs on threads of its own, from construction until `close`."""

    def __init__(
        self, exposition: Callable[[], bytes], host: str, port: int, why_dead: Probe, why_not_ready: Probe
    ) -> None:
        """exposition: returns the body of /metrics; 503 if it raises OSError. host: empty for all addresses of this
        machine, as in the other --*listen settings. port: 0 takes a free one; see `url`.
        why_dead, why_not_ready: return the reason for a 503 of /healthz and /readyz; 200 if it is empty.

        Raises StartError if it cannot listen there.
        """
        try:
            # resolved first, because an IPv6 address needs another kind of socket
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
            probes = {"/healthz": ("alive", why_dead), "/readyz": ("ready", why_not_ready)}
            self._server = _Server(family, (str(address[0]), int(address[1])), exposition, probes)
        except OSError as error:
            raise StartError(
                f"metrics: cannot listen on {address_text(host, port)} ({error}); choose another --metrics-listen"
            ) from error
        self.host = host
        self.port = int(self._server.server_address[1])
        self._thread = Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """The URL of the metrics, such as "http://127.0.0.1:9464/metrics"."""
        return f"http://{address_text(self.host or '0.0.0.0', self.port)}/metrics"

    def close(self) -> None:
        """Stops listening. Safe to call twice."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # a burst beyond it waits a second for each try: longer than many probes do

    def __init__(
        self,
        family: int,
        address: tuple[str, int],
        exposition: Callable[[], bytes],
        probes: Mapping[str, tuple[str, Probe]],
    ) -> None:
        self.address_family = family
        self.exposition = exposition
        self.probes = probes
        self._lock = Lock()
        self._open: dict[object, socket.socket] = {}  # the one whose last request is longest ago comes first
        super().__init__(address, _Handler)

    def process_request(self, request: object, client_address: object) -> None:
        self.asked(request)
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def asked(self, request: object) -> None:
        """Records that the connection is new, or has sent a request."""
        if not isinstance(request, socket.socket):
            return
        with self._lock:
            self._open.pop(request, None)
            self._open[request] = request
            if len(self._open) > MOST_CONNECTIONS:
                oldest = self._open.pop(next(iter(self._open)))
                with suppress(OSError):  # it has just ended
                    oldest.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: object) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores clients that hang up, as HAProxy's probe does once it has read the status."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    wbufsize = -1  # buffered, so that a response is one write

    def do_GET(self) -> None:
        self.server.asked(self.connection)
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer_metrics()
        elif path in self.server.probes:
            good, why_not = self.server.probes[path]
            why = why_not()
            status = HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK
            self._answer(status, "text/plain; charset=utf-8", f"{f'not {good}: {why}' if why else good}\n".encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"try /metrics, /healthz or /readyz\n")

    do_HEAD = do_GET  # monitors ask this way; _answer leaves the body out

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
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Does nothing: scrapes are not logged."""
