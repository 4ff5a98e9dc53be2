"""The HTTP listener: who may connect, which handler a request goes to, and how replies and refusals are written."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from aiohttp import web

from cellkeeper_service.core.guarded_meter import logs_errors
from cellkeeper_service.core.models import Models
from cellkeeper_service.errors import Reason, Rejection, internal_error
from cellkeeper_service.rpc.call_log import note_refused
from cellkeeper_service.rpc.catalog import REST_BYTES, Catalog, WireLimits
from cellkeeper_service.rpc.tls import Certificates

from . import replies
from .call import Ended, HttpCall, JsonCall
from .connections import Connections
from .console_files import ConsoleFile, read_console
from .guard import Guard
from .json_text import write_json
from .openapi import document
from .responses import add_headers, json_response, plain_refusal, refusal
from .routes import DOCUMENT, FRAMES, ROUTES, SOCKETS, STREAM, WATCH, Route
from .servicer import HttpServicer
from .sockets import Sockets

log = logging.getLogger(__name__)

JSON_PER_BYTE = 6
"""The most bytes of JSON for one byte of a tensor: 24 characters for a float32."""
LATE_SECONDS = 1.0
"""A request is answered when its deadline passes; after this much longer, the front stops waiting for the answer."""
CONSOLE = "/console/"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
GONE = 499
"""The status in the metrics if the client did not wait for one."""
SOCKET_PATHS = frozenset(socket.path for socket in SOCKETS)
_NAME = re.compile(r"\{(\w+)\}")
"""In a template. aiohttp on its own would find no route for a value with a brace in it."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpMeter(Protocol):
    def http_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request. route: the template, never the path that was requested."""


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """Limits of the listener.

    max_body_bytes: of a request, or of one WebSocket message.
    max_connections: of all clients together.
    message_timeout_ms: for a request's head, and for a client to receive a reply.
    """

    max_body_bytes: int
    max_connections: int
    message_timeout_ms: int


class HttpFront:
    def __init__(
        self,
        servicer: HttpServicer,
        models: Mapping[str, Models],
        wire: WireLimits,
        limits: FrontLimits,
        guard: Guard,
        meter: HttpMeter,
        certificates: Certificates | None = None,
    ) -> None:
        self._servicer = servicer
        self._guard = guard
        self._limits = limits
        self._count = logs_errors(meter.http_request)  # the response is written before it is counted
        room = limits.max_body_bytes // JSON_PER_BYTE
        own = replace(wire, max_message_bytes=room + REST_BYTES, message_setting="--max-http-body-bytes")
        self._catalog = Catalog(models, own)
        self._looking: asyncio.TimerHandle | None = None
        self._patience = limits.message_timeout_ms / 1000
        self._openapi = document(servicer.about.version)
        self._console = read_console()
        sockets = Sockets(servicer, self._catalog, limits.max_body_bytes, wire)
        app = web.Application(middlewares=[self._around])
        app.on_response_prepare.append(add_headers)
        handlers: dict[tuple[str, str], Handler] = {
            **{(route.method, route.path): self._answering(route) for route in ROUTES},
            ("GET", STREAM.path): sockets.step,
            ("GET", WATCH.path): sockets.watch,
            ("GET", FRAMES.path): sockets.frames,
            ("GET", DOCUMENT): self._document,
            ("GET", "/"): self._file,
            ("GET", CONSOLE + "{file:.*}"): self._file,
        }
        for (method, path), handler in handlers.items():
            matched = _NAME.sub(r"{\1:[^/]+}", path)
            app.router.add_route(method, matched, handler)
            if method == "GET" and path not in SOCKET_PATHS:
                # aiohttp sends the headers of the reply without its body
                app.router.add_route("HEAD", matched, handler)
        self._connections = Connections(app, self._patience, limits.max_connections, certificates)

    async def start(self, host: str, port: int, *, share_port: bool) -> int:
        """Listens, and returns the port. Raises StartError."""
        self._look()
        return await self._connections.listen(host, port, share_port=share_port)

    async def stop_listening(self) -> None:
        """Accepts no more connections."""
        await self._connections.stop_listening()

    async def stop(self) -> None:
        """Ends every connection; requests in flight have a second to finish."""
        if self._looking is not None:
            self._looking.cancel()
        await self._connections.stop()

    def _look(self) -> None:
        recent = self._servicer.about.recent
        recent.look()
        self._looking = asyncio.get_running_loop().call_later(recent.sample_seconds, self._look)

    def _answering(self, route: Route) -> Handler:
        handler: Callable[[HttpCall], Awaitable[Any]] = getattr(self._servicer, route.rpc)

        async def answer(request: web.Request) -> web.StreamResponse:
            call = JsonCall(request, route, self._catalog, self._limits.max_body_bytes)
            try:
                reply = await asyncio.wait_for(handler(call), self._seconds(call))
            except asyncio.TimeoutError:
                raise Rejection(Reason.DEADLINE_PASSED, "the request was not answered by its deadline") from None
            except Ended as ended:
                # Its traceback has the body. Until Python 3.12 the frame of wait_for is there, too, which refers to
                # this error, so that they would stay until the next garbage collection.
                raise ended.with_traceback(None) from None
            written = route.write(reply)
            status = replies.HTTP_STATUS[written["error"]["code"]] if "error" in written else 200
            return json_response(status, write_json(written))

        return answer

    def _seconds(self, call: HttpCall) -> float:
        """Returns the seconds until the front gives the request up."""
        try:
            seconds = call.time_remaining()
        except Rejection:  # the handler reports it, after authentication
            seconds = None
        return (self._catalog.limits.default_timeout_ms / 1000 if seconds is None else seconds) + LATE_SECONDS

    async def _document(self, request: web.Request) -> web.StreamResponse:
        return json_response(200, self._openapi)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        found: ConsoleFile | None = self._console.get(request.match_info.get("file", ""))
        if found is None:
            raise web.HTTPNotFound
        headers = {"ETag": f'"{found.tag}"', "Cache-Control": "no-cache"}
        # a proxy that compresses makes the tag a weak one
        if any(tag.value in (found.tag, "*") for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=found.body, headers={"Content-Type": found.content_type, **headers})

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Wraps every request: checks it with the guard, writes refusals as JSON, and counts it."""
        began, route, status = time.monotonic(), _template(request), GONE
        try:
            response = await self._refusing(request, handler, route)
            await asyncio.wait_for(_write(request, response), self._patience)
            status = response.status
        except (asyncio.TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the client has gone, or does not read") from None
        finally:
            method = request.method if request.method in METHODS else "other"  # a client may send any word
            self._count(method, route, status, time.monotonic() - began)
        return response

    async def _refusing(self, request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
        try:
            self._guard.check(request, changes=route in SOCKET_PATHS)
            return await handler(request)
        except Ended as ended:
            return refusal(ended.error)
        except Rejection as rejection:
            self._servicer.meter.rejected(rejection.reason.value)
            note_refused(HttpCall(request, route, ()), route, rejection)
            return refusal(replies.rejection(rejection))
        except web.HTTPException as plain:
            return plain_refusal(plain)
        except ConnectionError:  # the client has gone
            raise
        except Exception:
            log.exception("%s %s failed", request.method, route)
            return refusal(replies.rejection(internal_error()))


async def _write(request: web.Request, response: web.StreamResponse) -> None:
    """Returns when the client, or the kernel, has accepted the response."""
    if not isinstance(response, web.WebSocketResponse):
        await response.prepare(request)
        await response.write_eof()


def _template(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical
