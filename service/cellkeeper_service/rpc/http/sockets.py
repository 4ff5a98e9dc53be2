"""WebSockets: opens them, serves them like gRPC streams, and closes them with a code that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing

from aiohttp import WSCloseCode, web
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.errors import Reason, Rejection, invalid
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.codec import decoder, encoder
from cellkeeper_service.rpc.stream import Stream

from .call import PROTOCOL, Ended
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
PROTOCOLS = "Sec-WebSocket-Protocol"
HEARTBEAT_SECONDS = 30.0
"""A client that does not answer a ping within half of this time has gone, or does not read."""
CLOSE_SECONDS = 2.0  # for the client's half of the closing handshake
VERSIONS = ("13", "8", "7")


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
        try:
            async with aclosing(self._servicer.stream(call.route.rpc, call, kind)) as replies:
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


def unopened_socket(request: web.Request, most_bytes: int) -> web.WebSocketResponse:
    """Returns the socket that `prepare` opens. Raises a Rejection if the request is not a valid handshake.

    most_bytes: of one message of the client.
    """
    _check_protocols(request.headers.getall(PROTOCOLS, ()))
    socket = web.WebSocketResponse(
        protocols=(PROTOCOL,),
        autoping=False,  # socket_call.next_message answers pings
        compress=False,  # a small message could expand to a huge one
        max_msg_size=most_bytes + 1,  # aiohttp refuses messages of exactly this size
        heartbeat=HEARTBEAT_SECONDS,
        timeout=CLOSE_SECONDS,
    )
    if not socket.can_prepare(request).ok:
        raise _fault(request.headers)
    return socket


def _check_protocols(sent: Sequence[str]) -> None:
    """Raises a Rejection, which never shows what was sent: it contains a token.

    Of several headers aiohttp reads only the first, and logs it if it does not name our protocol.
    """
    if len(sent) > 1:
        raise invalid(PROTOCOLS, f"{len(sent)} headers", "one with all protocols, separated by commas")
    if sent and PROTOCOL not in [name.strip() for name in sent[0].split(",")]:
        raise invalid(PROTOCOLS, "others", f"{PROTOCOL} among them")


def _fault(headers: Mapping[str, str]) -> Rejection:
    """Returns the refusal of a request that is not a handshake."""
    upgrade, version = headers.get("Upgrade", ""), headers.get("Sec-WebSocket-Version", "")
    if upgrade.strip().lower() != "websocket":
        return invalid("Upgrade", repr(upgrade[:80]), "a WebSocket handshake")
    if version not in VERSIONS:
        return invalid("Sec-WebSocket-Version", repr(version[:80]), VERSIONS[0])
    if "upgrade" not in headers.get("Connection", "").lower():
        return invalid("Connection", repr(headers.get("Connection", "")[:80]), "Upgrade")
    return invalid("Sec-WebSocket-Key", repr(headers.get("Sec-WebSocket-Key", "")[:80]), "16 bytes in base64")
