"""A WebSocket as the streams see it: messages are read one by one, of JSON or of protobuf."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import WSMsgType, web

from cellkeeper_service.errors import Rejection, invalid
from cellkeeper_service.rpc.call_context import EOF

from .call import HttpCall
from .fields import MOST, Fields, text
from .json_text import read_json, shown
from .step_socket import Unfit

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
    """A socket whose client sends nothing after opening it."""

    def __init__(
        self,
        request: web.Request,
        template: str,
        names: Sequence[str],
        socket: web.WebSocketResponse,
        first: Callable[[], Any],
    ) -> None:
        """first: returns the message that the opening stands for. Raises a Rejection."""
        super().__init__(request, template, names)
        self.socket = socket
        self._first: Callable[[], Any] | None = first

    async def read(self) -> Any:
        if self._first is not None:
            first, self._first = self._first, None
            return first()
        return await self._next()

    async def _next(self) -> Any:
        if await self._text() is None:
            return EOF
        raise invalid(MESSAGE, "one", "none: only the server sends here")

    async def _text(self) -> str | None:
        """Returns the next message, or None if the client has closed the socket or it broke."""
        message = await self.socket.receive()
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        if message.type is WSMsgType.BINARY:
            raise invalid(MESSAGE, f"{len(message.data)} bytes", "text: a JSON object")
        return None


class StepCall(SocketCall):
    """A socket whose client sends steps.

    Limits the messages that were read and whose replies have not been sent; further ones are not read until there is
    room.
    """

    def __init__(
        self,
        request: web.Request,
        template: str,
        socket: web.WebSocketResponse,
        first: Callable[[], Any],
        read: Callable[[Fields, int], Any],
        most_unanswered: int,
    ) -> None:
        """read: builds the frame with the given number. Raises a Rejection."""
        super().__init__(request, template, (), socket, first)
        self._read = read
        self._room = asyncio.Semaphore(most_unanswered)
        self._count = 0
        self._order: deque[int] = deque()
        self._ids: dict[int, Any] = {}
        self._ready: dict[int, dict[str, Any]] = {}

    async def _next(self) -> Any:
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
            return self._read(body, number)
        except Rejection as why:
            return Unfit(number, why)

    def answered(self, number: int, written: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the replies that may be sent now. number: of the frame; 0: it answers none, and is sent at once."""
        if number == 0:
            return [written]
        self._ready[number] = {"id": self._ids.pop(number), **written} if number in self._ids else written
        leaving = []
        while self._order and self._order[0] in self._ready:
            leaving.append(self._ready.pop(self._order.popleft()))
        return leaving

    def left(self, count: int) -> None:
        """Records that `count` replies have been sent."""
        for _ in range(count):
            self._room.release()


class FrameCall(HttpCall):
    """A WebSocket on which each of the client's messages is a StepFrame.

    An empty message means that no more frames follow: the server answers those before it, and closes the socket. (If
    the client closed the socket, it would not receive the replies.)

    The handshake is completed when the first frame is about to be read, once the caller is known to be allowed. Other
    callers are refused with the handshake's status, and none of their frames is read.
    """

    def __init__(
        self, request: web.Request, template: str, socket: web.WebSocketResponse, decode: Callable[[bytes], Any]
    ) -> None:
        """decode: from a message's bytes to the frame, or to Malformed."""
        super().__init__(request, template, ())
        self.socket = socket
        self._decode = decode

    async def read(self) -> Any:
        socket = self.socket
        if not socket.prepared:
            try:
                await socket.prepare(self.request)
            except ConnectionError:  # the client has already gone
                return EOF
        message = await socket.receive()
        if message.type is WSMsgType.BINARY:
            return self._decode(message.data) if message.data else EOF
        if message.type is WSMsgType.TEXT:
            raise invalid("message", "text", "binary: a cellkeeper.v1.StepFrame")
        return EOF  # the client has closed the socket, or it broke
