"""A WebSocket of frames: gRPC's StepStream as binary protobuf messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from cellkeeper_service.errors import invalid
from cellkeeper_service.rpc.call_context import EOF

from .call import HttpCall


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
