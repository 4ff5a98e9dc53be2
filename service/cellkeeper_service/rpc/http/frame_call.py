"""A WebSocket of frames: what gRPC's StepStream is, as binary messages of protobuf."""

from __future__ import annotations

from typing import Any

from aiohttp import WSMsgType, web
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from cellkeeper_service.errors import invalid
from cellkeeper_service.rpc.decoding import decoder

from .call import EOF, HttpCall

_decode = decoder(pb.StepFrame)


class FrameCall(HttpCall):
    """Each message of the client is a StepFrame. An empty one says that no further frame follows: those before it are
    answered, and the server closes the socket. (A WebSocket that its client closes takes no replies any more.)

    The socket is opened when the first frame is to be read, that is once the caller may go on: whoever may not is
    refused by the handshake's status, and nothing of a frame is read.
    """

    def __init__(self, request: web.Request, template: str, socket: web.WebSocketResponse) -> None:
        super().__init__(request, template, ())
        self.socket = socket

    async def read(self) -> Any:
        socket = self.socket
        if not socket.prepared:
            try:
                await socket.prepare(self.request)
            except ConnectionError:  # the client has gone already
                return EOF
        message = await socket.receive()
        if message.type is WSMsgType.BINARY:
            return _decode(message.data) if message.data else EOF
        if message.type is WSMsgType.TEXT:
            raise invalid("message", "text", "binary: a cellkeeper.v1.StepFrame")
        return EOF  # the client has closed the socket, or it broke
