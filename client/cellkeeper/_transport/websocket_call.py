"""A StreamCall over a WebSocket: the same frames as over gRPC, as binary messages."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any, NoReturn, cast

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.protobuf.message import DecodeError
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, WebSocketException
from websockets.http11 import Response

from ..errors import AccessDenied, InvalidArgument, ResourceExhausted
from .credentials import Metadata
from .message_connection import MessageConnection
from .stream_call import CallEnded, ended_as, lost
from .websocket_address import WebSocketAddress
from .wire import from_json

_MAX_REPLY_BYTES = 64 << 20  # as over gRPC
_NO_MORE = b""
"""Sent instead of a frame: no more follow. A WebSocket that its client has closed receives no replies."""
_TOO_LARGE = 1009  # the close code for a message that is too large


class WebSocketCall:
    """A StreamCall that starts to open at once; whoever reads or writes waits for that, and fails with it."""

    def __init__(self, address: WebSocketAddress, metadata: Metadata) -> None:
        """metadata: headers for the handshake, including the token."""
        self._address = address
        self._opening = asyncio.get_running_loop().create_task(self._open(metadata))
        self._socket: MessageConnection | None = None

    async def write(self, frame: Any) -> None:
        await self._send(frame.SerializeToString())

    async def done_writing(self) -> None:
        await self._send(_NO_MORE)

    async def deliver(self, take: Callable[[Any], None]) -> NoReturn:
        def read(message: bytes, is_text: bool) -> None:
            if is_text:
                raise self._refused(message.decode())
            try:
                reply = pb.StepFrameReply.FromString(message)
            except DecodeError as error:
                raise lost(self._address.url, f"sent a reply that cannot be read: {error}") from None
            take(reply)

        socket = self._socket or await self._opened()
        try:
            await socket.deliver(read)
        except ConnectionClosed as closed:
            raise self._closed(closed) from None

    def cancel(self) -> None:
        self._opening.cancel()
        if self._socket is not None:
            self._socket.transport.abort()

    # ------------------------------------------------------------------------------------------ inside

    async def _send(self, message: bytes) -> None:
        socket = self._socket or await self._opened()
        try:
            await socket.write(message)
        except ConnectionClosed as closed:
            raise self._closed(closed) from None

    async def _opened(self) -> MessageConnection:
        """Waits until the socket is open. Raises CallEnded."""
        await asyncio.wait([self._opening])  # several tasks may wait, and none of them may cancel it for the others
        if self._opening.cancelled():
            raise lost(self._address.url, "lost its stream, which the client cancelled")
        return self._opening.result()

    async def _open(self, metadata: Metadata) -> MessageConnection:
        address = self._address
        try:
            socket = await connect(
                address.url,
                create_connection=MessageConnection,
                additional_headers=metadata,
                ssl=address.context,
                server_hostname=address.server_name,
                compression=None,
                max_size=_MAX_REPLY_BYTES,
                open_timeout=None,  # the stream has its own time limit
                ping_interval=None,  # the server sends pings
                proxy=None if address.is_loopback else True,
            )
        except InvalidStatus as refused:
            raise self._not_opened(refused.response) from None
        except (OSError, InvalidHandshake, InvalidMessage, ssl.SSLError) as error:
            raise lost(address.url, f"cannot be reached: {error or type(error).__name__}") from None
        except (WebSocketException, ImportError) as error:  # for example a proxy in the environment that it cannot use
            raise CallEnded(self._unusable(str(error)), is_refusal=True) from None
        self._socket = cast(MessageConnection, socket)
        return self._socket

    def _not_opened(self, response: Response) -> CallEnded:
        try:
            return self._refused(bytes(response.body or b"").decode())
        except ValueError:
            pass
        why = f"answered with status {response.status_code}"
        if response.status_code >= 500 or response.status_code == 429:
            return lost(self._address.url, why)
        if response.status_code in (401, 403):  # a server would have given its reason
            text = f"websocket: {self._address.url} {why}; a proxy there does not accept the token or certificate"
            return CallEnded(AccessDenied(text, field="websocket"), is_refusal=True)
        return CallEnded(self._unusable(why), is_refusal=True)

    def _unusable(self, why: str) -> InvalidArgument:
        text = f"websocket: {self._address.url} {why}; expected a server's --http-listen"
        return InvalidArgument(text, reason="INVALID_FIELD", field="websocket")

    def _refused(self, text: str) -> CallEnded:
        """Returns the error in the server's JSON. Raises ValueError for any other text."""
        code, error = from_json(json.loads(text), self._address.url)
        if code is None or error.reason == "":
            raise ValueError(text)
        return ended_as(code, error)

    def _closed(self, closed: ConnectionClosed) -> CallEnded:
        told = closed.rcvd
        if told is not None and told.code == _TOO_LARGE:
            text = f"{self._address.url} does not accept a message of this size: {told.reason}"
            return CallEnded(ResourceExhausted(f"{text}; send fewer time steps at once", field="inputs"))
        return lost(self._address.url, "ended the stream" if told is not None else f"was lost: {closed}")
