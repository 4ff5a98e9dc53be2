"""Client connections: where they are accepted, how many at a time, and how they end."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from cellkeeper_service.address import address_text, check_free
from cellkeeper_service.errors import StartError, internal_error, invalid
from cellkeeper_service.logs import PerSecond
from cellkeeper_service.rpc.tls import Certificates

from . import replies
from .responses import refusal, set_headers

log = logging.getLogger(__name__)
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"X-Content-Type-Options: nosniff\r\n\r\n"
)

LINGER_SECONDS = 0.5
MAX_LINGERING = 64
"""How many excess connections may linger to be read for a moment; further ones are closed at once."""


class NoRequests(logging.Filter):
    """Logs malformed requests as one line a second.

    aiohttp reports them as its own errors, with a traceback and with the bytes, which may contain an id or a token; but
    they are the sender's mistake.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rate = PerSecond(1)

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        record.levelno, record.levelname, record.exc_info = logging.INFO, "INFO", None
        record.msg, record.args = "refused: bytes that are not an HTTP request", ()
        return log.isEnabledFor(logging.INFO) and self._rate.admit("bytes") is not None


_of_aiohttp = logging.getLogger(f"{__name__}.aiohttp")
_of_aiohttp.addFilter(NoRequests())


class Connections:
    """The listener and its connections. app: handles their requests. most: connections at a time.

    patience_seconds: for a request's head, on a connection that is open.
    """

    def __init__(
        self, app: web.Application, patience_seconds: float, most: int, certificates: Certificates | None
    ) -> None:
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        self._patience_seconds = patience_seconds
        self._most = most
        self._certificates = certificates
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int, *, share_port: bool) -> int:
        """Listens, and returns the port. Raises StartError."""
        await self._runner.setup()
        tls = None if self._certificates is None else self._certificates.context()
        try:
            if not share_port:
                check_free(host, port)
            family, _, _, _, place = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM,
                                                        flags=socket.AI_PASSIVE)[0]  # fmt: skip
            self._server = await asyncio.get_running_loop().create_server(
                self._protocol, str(place[0]), port, family=family, ssl=tls, reuse_port=share_port or None
            )
        except OSError as error:
            await self._runner.cleanup()
            raise StartError(
                f"cannot listen on {address_text(host, port)} ({error}); choose another with --http-listen"
            ) from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop_listening(self) -> None:
        """Accepts no more connections."""
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """Ends all connections."""
        await self.stop_listening()
        await self._runner.cleanup()

    def _protocol(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._most:
            return _Full()
        return _Connection(
            server,
            loop=asyncio.get_running_loop(),
            logger=_of_aiohttp,
            access_log=None,  # type: ignore[arg-type]  # it would contain session ids
            keepalive_timeout=self._patience_seconds,
            lingering_time=1.0,
            auto_decompress=False,
        )


class _Connection(web.RequestHandler):
    """An accepted connection. What aiohttp itself refuses is refused like any bad request."""

    __slots__ = ()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends the response, and returns it and whether the client has gone."""
        if isinstance(resp, web.HTTPExpectationFailed):  # before any handler, whether the path exists or not
            resp = refusal(replies.rejection(invalid("Expect", repr(request.headers["Expect"][:80]), "100-continue")))
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Returns the response to an error outside of the application. The connection is closed after it."""
        if isinstance(exc, ConnectionError):  # the client has gone, which ends the connection without a line of the log
            raise exc
        super().handle_error(request, status, exc, message)  # logs it; raises if a response has begun
        why = internal_error()
        if isinstance(exc, HttpProcessingError):
            came = (message or "bytes").partition("\n")[0].rstrip(":.")
            why = invalid("request", f"bytes that are not HTTP ({came})", "an HTTP/1.1 request")
        made = refusal(replies.rejection(why))
        made.force_close()
        set_headers(made)
        made.headers["Server"] = "cellkeeper"  # otherwise aiohttp's name and version
        return made


class _Full(asyncio.Protocol):
    """A connection too many. It gets FULL, and what it sends is read for a moment.

    If unread bytes remain when a socket is closed, the kernel resets the connection, and the client never sees the
    reply.
    """

    lingering = 0  # in this process

    def __init__(self) -> None:
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast(asyncio.Transport, transport)
        made.write(FULL)
        if _Full.lingering >= MAX_LINGERING or not made.can_write_eof():
            made.close()
            return
        made.write_eof()
        _Full.lingering += 1
        self._end = asyncio.get_running_loop().call_later(LINGER_SECONDS, made.close)

    def connection_lost(self, error: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
            _Full.lingering -= 1
