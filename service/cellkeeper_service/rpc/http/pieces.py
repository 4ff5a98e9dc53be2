"""What a connection receives, in small pieces, so that others get their turn between them."""

from __future__ import annotations

import asyncio

READ_BYTES = 16 * 1024
"""What is read at once. As long as that much has arrived, uvloop reads a connection 32 times before it turns to others,
and without this limit 16 times as much: a client that sends nothing but empty fragments of a message, as fast as it
can, would hold the event loop for a tenth of a second at every turn."""
_buffer = memoryview(bytearray(READ_BYTES))  # of all connections, since what is read is handed over at once


class InPieces(asyncio.BufferedProtocol):
    """Hands a protocol what arrives, in pieces of READ_BYTES. ended: done once the connection is lost."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._protocol = protocol
        self.connection_made = protocol.connection_made  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(bytes(_buffer[:nbytes]))

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)
        if not self.ended.done():
            self.ended.set_result(None)
