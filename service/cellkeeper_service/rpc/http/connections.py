"""Client connections: where they are accepted, how many at a time, and how they end."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from ssl import SSLContext
from typing import Any

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
MAX_REFUSED = 64
"""How many excess connections at a time are told why; further ones are closed at once."""
BACKLOG = 100
RETRY_SECONDS = 1.0
"""After a connection that could not be accepted, such as for lack of open files."""
READ_BYTES = 16 * 1024
"""What is read at once. As long as that much has arrived, uvloop reads a connection 32 times before it turns to others,
and without this limit 16 times as much: a client that sends nothing but empty fragments of a message, as fast as it
can, would hold the event loop for a tenth of a second at every turn."""
_buffer = memoryview(bytearray(READ_BYTES))  # of all connections, since what is read is handed over at once


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

    patience_seconds: for a TLS handshake, and for a request's head on a connection that is open.
    """

    def __init__(
        self, app: web.Application, patience_seconds: float, most: int, certificates: Certificates | None
    ) -> None:
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        self._patience_seconds = patience_seconds
        self._most = most
        self._certificates = certificates
        self._accepting: asyncio.Task[None] | None = None
        self._open: set[asyncio.Task[None]] = set()  # a task for each connection, from its handshake to its end
        self._refused: set[asyncio.Task[None]] = set()  # of excess connections

    async def listen(self, host: str, port: int, *, share_port: bool) -> int:
        """Listens, and returns the port. Raises StartError."""
        await self._runner.setup()
        tls = None if self._certificates is None else self._certificates.context()
        try:
            if not share_port:
                check_free(host, port)
            options: Any = {"type": socket.SOCK_STREAM, "flags": socket.AI_PASSIVE}
            family, _, _, _, place = socket.getaddrinfo(host or None, port, **options)[0]
            listener = socket.create_server(
                (str(place[0]), port), family=family, backlog=BACKLOG, reuse_port=share_port
            )
        except OSError as error:
            await self._runner.cleanup()
            raise StartError(
                f"cannot listen on {address_text(host, port)} ({error}); choose another with --http-listen"
            ) from error
        listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener, tls), name="http accept")
        return int(listener.getsockname()[1])

    async def stop_listening(self) -> None:
        """Accepts no more connections."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])

    async def stop(self) -> None:
        """Ends all connections."""
        await self.stop_listening()
        for task in (*self._open, *self._refused):
            task.cancel()
        await self._runner.cleanup()

    async def _accept(self, listener: socket.socket, tls: SSLContext | None) -> None:
        """Accepts connections until it is cancelled.

        A server of asyncio would report a connection only after its TLS handshake, which its client may never make.
        """
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    accepted, _ = await loop.sock_accept(listener)
                except ConnectionError:  # the client has gone already
                    continue
                except OSError as error:
                    log.warning("cannot accept connections: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                if len(self._open) < self._most:
                    task, tasks = loop.create_task(self._serve(accepted, tls)), self._open
                elif len(self._refused) < MAX_REFUSED:
                    task, tasks = loop.create_task(self._refuse(accepted, tls)), self._refused
                else:
                    accepted.close()
                    continue
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def _serve(self, accepted: socket.socket, tls: SSLContext | None) -> None:
        """Returns when the connection has ended."""
        server = self._runner.server
        if server is None:  # it has just stopped
            accepted.close()
            return
        pieces = InPieces(
            _Connection(
                server,
                loop=asyncio.get_running_loop(),
                logger=_of_aiohttp,
                access_log=None,  # type: ignore[arg-type]  # it would contain session ids
                keepalive_timeout=self._patience_seconds,
                lingering_time=1.0,
                auto_decompress=False,
            )
        )
        if await _connected(pieces, accepted, tls, self._patience_seconds) is not None:
            await pieces.ended

    async def _refuse(self, accepted: socket.socket, tls: SSLContext | None) -> None:
        """Says that there are too many connections, and reads for a moment what the client sends.

        If unread bytes remain when a socket is closed, the kernel resets the connection, and the client never sees the
        reply.
        """
        dropped = InPieces(asyncio.Protocol())  # which ignores what it gets
        transport = await _connected(dropped, accepted, tls, LINGER_SECONDS)
        if transport is None:
            return
        try:
            transport.write(FULL)
            if transport.can_write_eof():
                with suppress(OSError):  # of asyncio's own loop: the client has gone
                    transport.write_eof()
                await asyncio.wait([dropped.ended], timeout=LINGER_SECONDS)
        finally:
            transport.close()


async def _connected(
    protocol: asyncio.BaseProtocol, accepted: socket.socket, tls: SSLContext | None, seconds: float
) -> asyncio.Transport | None:
    """Returns the connection's transport, or None if the client has gone or makes no handshake within `seconds`."""
    loop = asyncio.get_running_loop()
    try:
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, accepted, ssl=tls, ssl_handshake_timeout=None if tls is None else seconds
        )
    except OSError:
        return None
    return transport


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


class InPieces(asyncio.BufferedProtocol):
    """Hands a protocol what arrives, in pieces of READ_BYTES. ended: done once the connection is lost."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._protocol = protocol
        self.connection_made = protocol.connection_made  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(bytes(_buffer[:nbytes]))

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)
        if not self.ended.done():
            self.ended.set_result(None)
