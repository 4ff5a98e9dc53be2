"""What a connection receives comes in small pieces, on either event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from threading import Thread

import pytest
import uvloop
from cellkeeper_service.rpc.http.connections import InPieces

SENT_BYTES = 4 * 1024 * 1024


class Receiver(asyncio.Protocol):
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def data_received(self, data: bytes) -> None:
        self.sizes.append(len(data))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_flood_comes_in_pieces(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """They are 256 KiB otherwise, and uvloop takes 32 of them before any other connection has its turn."""
    receiver = Receiver()
    ours, theirs = socket.socketpair()

    def flood() -> None:
        with theirs:
            theirs.sendall(bytes(SENT_BYTES))

    async def receive() -> None:
        pieces = InPieces(receiver)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: pieces, ours)
        sender.start()
        await pieces.ended

    sender = Thread(target=flood)
    loop = new_loop()
    try:
        loop.run_until_complete(receive())
    finally:
        loop.close()
        sender.join()
    assert sum(receiver.sizes) == SENT_BYTES
    assert max(receiver.sizes) <= 16 * 1024
