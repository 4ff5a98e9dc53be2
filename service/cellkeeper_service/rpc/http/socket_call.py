"""A WebSocket as the streams see it: messages are read one by one, of JSON or of protobuf."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import WSMessage, WSMsgType, web
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.errors import Rejection, invalid
from cellkeeper_service.rpc.call_context import EOF
from cellkeeper_service.rpc.catalog import Catalog

from .asked import Asked
from .call import HttpCall
from .fields import MOST, Fields, text
from .json_text import read_json, shown, write_json
from .routes import FRAMES, STREAM, WATCH, Socket
from .step_socket import Opened, UnfitFrame, read_frame, write_reply
from .watch import watch_asked

MESSAGE = "message"
MAX_IDENTITY_BYTES = 256
"""An id is kept until its reply has been sent, and no quota counts it."""
IDENTITY = f"a string of at most {MAX_IDENTITY_BYTES} bytes of UTF-8, or a number"


def _identity(value: Any) -> str | int | float:
    """Returns the client's id of its message. Raises a Rejection."""
    if type(value) is str:
        if len(text(value, "id", IDENTITY).encode()) > MAX_IDENTITY_BYTES:
            raise invalid("id", shown(value), IDENTITY)
        return value
    if type(value) not in (int, float) or not abs(value) < MOST:  # infinity is refused too
        raise invalid("id", shown(value), IDENTITY)
    return value  # type: ignore[no-any-return]


class SocketCall(HttpCall):
    """A socket of JSON messages."""

    route: Socket

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, catalog: Catalog) -> None:
        """catalog: with the limits for JSON replies."""
        super().__init__(request, self.route.path, list(self.route.query))
        self.socket = socket
        self._catalog = catalog

    async def send(self, reply: Any) -> None:
        """Returns when the reply has left. Raises ConnectionError if the client has gone."""
        await send_json(self.socket, reply)

    async def _text(self) -> str | None:
        """Returns the next message, or None if the client has closed the socket or it broke."""
        message = await next_message(self.socket)
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        if message.type is WSMsgType.BINARY:
            raise invalid(MESSAGE, f"{len(message.data)} bytes", "text: a JSON object")
        return None


class WatchCall(SocketCall):
    """A socket whose client sends nothing after opening it, which stands for the first message."""

    route = WATCH
    _started = False

    async def read(self) -> Any:
        if not self._started:
            self._started = True
            return watch_asked(Asked(self._catalog, self.path, self.query))
        if await self._text() is None:
            return EOF
        raise invalid(MESSAGE, "one", "none: only the server sends here")


class StepCall(SocketCall):
    """A socket whose client sends steps of one session. Its opening stands for the first message.

    Limits the messages that were read and whose replies have not been sent; further ones are not read until there is
    room.
    """

    route = STREAM

    def __init__(self, request: web.Request, socket: web.WebSocketResponse, catalog: Catalog) -> None:
        """See SocketCall."""
        super().__init__(request, socket, catalog)
        self._is_opened = False
        self._room = asyncio.Semaphore(catalog.limits.max_stream_frames)
        self._count = 0
        self._order: deque[int] = deque()
        self._ids: dict[int, Any] = {}
        self._ready: dict[int, dict[str, Any]] = {}

    async def read(self) -> Any:
        model, session = self.path["model"], self.path["session"]
        if not self._is_opened:
            self._is_opened = True
            _ = self.query  # raises a Rejection if there is one
            self._catalog.find(model)
            return Opened()
        await self._room.acquire()
        message = await self._text()
        if message is None:
            return EOF
        body = Fields(read_json(message.encode(), MESSAGE), whole=MESSAGE)
        self._count += 1
        number = self._count
        self._order.append(number)
        try:
            if body.has("id"):
                self._ids[number] = _identity(body.value("id", IDENTITY))
            return read_frame(body, number, model, session, self._catalog)
        except Rejection as why:
            return UnfitFrame(pb.StepFrame(frame_id=number, model=model, sessions=[session], steps=[0]), why)

    async def send(self, reply: pb.StepFrameReply) -> None:
        """Sends a frame's reply after those to the frames before it; at once if it answers none."""
        number, written = reply.frame_id, write_reply(reply)
        if number == 0:
            await send_json(self.socket, written)
            return
        self._ready[number] = {"id": self._ids.pop(number), **written} if number in self._ids else written
        while self._order and self._order[0] in self._ready:
            await send_json(self.socket, self._ready.pop(self._order.popleft()))
            self._room.release()


class FrameCall(HttpCall):
    """A WebSocket on which each of the client's messages is a StepFrame.

    An empty message means that no more frames follow: the server answers those before it, and closes the socket. (If
    the client closed the socket, it would not receive the replies.)

    The handshake is completed when the first frame is about to be read, once the caller is known to be allowed. Other
    callers are refused with the handshake's status, and none of their frames is read.
    """

    route = FRAMES

    def __init__(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        decode: Callable[[bytes], Any],
        encode: Callable[[Any], bytes],
    ) -> None:
        """decode: from a message's bytes to the frame; raises a Rejection. encode: from a reply to its bytes."""
        super().__init__(request, self.route.path, list(self.route.query))
        self.socket = socket
        self._decode = decode
        self._encode = encode

    async def read(self) -> Any:
        socket = self.socket
        if not socket.prepared:
            _ = self.query  # raises a Rejection if there is one
            try:
                await socket.prepare(self.request)
            except ConnectionError:  # the client has already gone
                return EOF
        message = await next_message(socket)
        if message.type is WSMsgType.BINARY:
            return self._decode(message.data) if message.data else EOF
        if message.type is WSMsgType.TEXT:
            raise invalid("message", "text", "binary: a cellkeeper.v1.StepFrame")
        return EOF  # the client has closed the socket, or it broke

    async def send(self, reply: Any) -> None:
        """Returns when the reply has left. Raises ConnectionError if the client has gone."""
        await self.socket.send_bytes(self._encode(reply))


async def next_message(socket: web.WebSocketResponse) -> WSMessage:
    """Returns the next message that is not a ping or a pong, and answers pings.

    Others get their turn after each: a client that sends nothing else, as fast as it can, would hold the event loop for
    seconds, because reading what has arrived already does not wait.
    """
    while (message := await socket.receive()).type in (WSMsgType.PING, WSMsgType.PONG):
        if message.type is WSMsgType.PING:
            with suppress(ConnectionError):  # the client has gone, which ends the socket
                await socket.pong(message.data)
        await asyncio.sleep(0)
    return message


async def send_json(socket: web.WebSocketResponse, value: dict[str, Any]) -> None:
    """Sends the value once there is room. Raises ConnectionError if the client has gone."""
    await socket.send_str(write_json(value).decode())
