"""An HTTP/2 client that shows each frame, and sends nothing on its own but acknowledgements."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from verification.load.hostile import (
    ACK,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    WINDOW,
    WINDOW_SETTING,
    frame,
    headers,
)

END_STREAM = 1
CANCEL = 8


def message(data: bytes) -> bytes:
    """Returns the message as gRPC frames it."""
    return struct.pack(">BI", 0, len(data)) + data


def begin(stream: int, path: str) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, headers(path))


def unary(stream: int, path: str, data: bytes = b"") -> bytes:
    """Returns the frames of a whole call."""
    return begin(stream, path) + frame(DATA, END_STREAM, stream, message(data))


def reset(stream: int) -> bytes:
    return frame(RESET, 0, stream, struct.pack(">I", CANCEL))


class Http2:
    """One connection. data: what came, by stream. ended: the streams that the server has ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.data: defaultdict[int, bytes] = defaultdict(bytes)
        self.ended: set[int] = set()
        self.is_closed = False
        self._pongs = 0
        self._reader, self._writer = reader, writer
        self._changed = asyncio.Condition()

    def send(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))

    def open_window(self, count: int, stream: int) -> None:
        self.send(frame(WINDOW, 0, stream, struct.pack(">I", count)))

    async def ping(self) -> None:
        """Returns when gRPC has read all that was sent before."""
        pongs = self._pongs
        self.send(frame(PING, 0, 0, bytes(8)))
        await self.until(lambda: self._pongs > pongs)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: holds() or self.is_closed), 30)
        assert holds(), "the server closed the connection"

    async def listen(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
                async with self._changed:
                    self._changed.notify_all()
        except (asyncio.IncompleteReadError, OSError):
            self.is_closed = True
            async with self._changed:
                self._changed.notify_all()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == PING:
            self._pongs += 1
        elif kind == DATA:
            self.data[stream] += payload
            if payload:  # the connection itself never holds the server back
                self.send(frame(WINDOW, 0, 0, struct.pack(">I", len(payload))))
        if kind == RESET or (kind in (HEADERS, DATA) and flags & END_STREAM):
            self.ended.add(stream)


@asynccontextmanager
async def connection(port: int, window: int | None = None) -> AsyncIterator[Http2]:
    """window: how many bytes of each stream the server may send at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Http2(reader, writer)
    settings = b"" if window is None else struct.pack(">HI", WINDOW_SETTING, window)
    client.send(PREFACE, frame(SETTINGS, 0, 0, settings))
    listening = asyncio.create_task(client.listen())
    try:
        yield client
    finally:
        listening.cancel()
        writer.transport.abort()
