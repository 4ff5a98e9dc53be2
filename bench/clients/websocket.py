"""Frames over a WebSocket without the client."""

from __future__ import annotations

from typing import Any

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

MAX_REPLY_BYTES = 64 << 20


class FrameSocket:
    """Provides the parts of gRPC's stream that frame_sender needs."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def write(self, frame: pb.StepFrame) -> None:
        await self._socket.send(frame.SerializeToString())

    async def read(self) -> Any:
        try:
            return pb.StepFrameReply.FromString(await self._socket.recv(decode=False))
        except ConnectionClosed:
            return grpc.aio.EOF  # type: ignore[attr-defined]

    async def code(self) -> str:
        return f"closed with {self._socket.close_code}"


async def opened(url: str) -> FrameSocket:
    """Opens a socket. url: of the server's --http-listen, ws://host:port."""
    return FrameSocket(await connect(f"{url}/v1/frames", compression=None, max_size=MAX_REPLY_BYTES, proxy=None))
