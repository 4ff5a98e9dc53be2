"""WebSockets: opens them, serves them like gRPC streams, and closes them with a code that says why."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import WSCloseCode, web
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.errors import Reason, Rejection
from cellkeeper_service.rpc.caller import Caller
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.codec import decoder, encoder
from cellkeeper_service.rpc.stream import Stream

from .call import Ended
from .handshake import unopened_socket
from .servicer import HttpServicer
from .socket_call import FrameCall, SocketCall, StepCall, WatchCall, send_json
from .step_socket import StepSocket
from .watch import Watch

RETRY_DELAY_MS = 100  # while the server shuts down
CODES = {
    "INTERNAL": WSCloseCode.INTERNAL_ERROR,
    "UNAVAILABLE": WSCloseCode.GOING_AWAY,
    "RESOURCE_EXHAUSTED": WSCloseCode.TRY_AGAIN_LATER,
}
"""By the name of the gRPC code; for all others POLICY_VIOLATION (1008)."""


class Sockets:
    """The handlers of WebSockets.

    catalog: with the limits for JSON replies. most_bytes: of one JSON message of a client. wire: the limits of frames.
    """

    def __init__(self, servicer: HttpServicer, catalog: Catalog, most_bytes: int, wire: WireLimits) -> None:
        self._servicer = servicer
        self._catalog = catalog
        self._most = most_bytes
        self._max_frame_bytes = wire.max_message_bytes
        self._decode = decoder(pb.StepFrame, wire.max_message_fields)
        self._encode = encoder(wire.max_message_bytes)

    async def step(self, request: web.Request) -> web.StreamResponse:
        """Serves STREAM, from its opening to its end."""
        return await self._serve(StepCall(request, await self._open(request), self._catalog), StepSocket)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """Serves WATCH, from its opening to its end."""
        return await self._serve(WatchCall(request, await self._open(request), self._catalog), Watch)

    async def frames(self, request: web.Request) -> web.StreamResponse:
        """Serves FRAMES, from its opening to its end."""
        socket = unopened_socket(request, self._max_frame_bytes)
        return await self._serve(FrameCall(request, socket, self._decode, self._encode), Stream)

    async def _open(self, request: web.Request) -> web.WebSocketResponse:
        """Opens the socket. Raises a Rejection if the request is not a valid handshake.

        Everybody may open one: a browser does not tell its page why a handshake was refused, so a refusal is sent as a
        message before the socket is closed.
        """
        socket = unopened_socket(request, self._most)
        await socket.prepare(request)
        return socket

    async def _serve(self, call: SocketCall | FrameCall, kind: type[Stream] | type[Watch]) -> web.StreamResponse:
        """Serves the call as a stream of that kind, and closes the socket.

        Raises Ended, or a Rejection, if the socket was never opened.
        """
        socket = call.socket

        def make(caller: Caller, latest: float) -> Stream | Watch:
            return kind(caller, self._servicer.core, self._servicer.meter, latest)

        try:
            replies: AsyncGenerator[list[Any], None] = self._servicer.streams.serve(call.route.rpc, call, make)
            async with aclosing(replies):
                async for ready in replies:
                    for reply in ready:
                        await call.send(reply)
            ending = self._servicer.streams.ending
            code = WSCloseCode.GOING_AWAY if ending else WSCloseCode.OK
            text = "the server is shutting down" if ending else ""
        except Ended as ended:
            if not socket.prepared:
                raise
            code, text = CODES.get(ended.error["code"], WSCloseCode.POLICY_VIOLATION), ended.error["reason"]
            try:
                await send_json(socket, {"error": ended.error})
            except ConnectionError:
                return socket
        except ConnectionError:  # the client has gone, or does not read
            return socket
        if not socket.prepared:
            if ending:
                raise Rejection(Reason.DRAINING, text, retry_delay_ms=RETRY_DELAY_MS)
            raise Rejection(Reason.CALLER_GONE, "the client has gone")
        await socket.close(code=code, message=text.encode())
        return socket
