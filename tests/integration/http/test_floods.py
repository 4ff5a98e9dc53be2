"""A client that sends as fast as it can holds up nobody else: what it sent is read between the requests of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from select import select
from threading import Thread

import pytest

from .front import Front, RawSocket, serving, sums

PINGS = 200_000
PING, PONG = b"\x89\x80" + bytes(4), b"\x8a\x00"
FRAGMENTS = 10_000_000
BEGINNING, FRAGMENT = b"\x01\x80" + bytes(4), b"\x00\x80" + bytes(4)  # of a text without its end; empty
MANY = 10_000


@pytest.fixture
def front(counting_model: Path) -> Iterator[Front]:
    with serving([counting_model]) as made:
        yield made


@pytest.mark.parametrize("what", ["stream", "watch"])
def test_pings(front: Front, what: str) -> None:
    """Answering one takes the server about as long as a turn of its event loop."""
    with RawSocket(front, f"{front.session().path}/{what}") as one:
        sender = Thread(target=one.socket.sendall, args=(PING * PINGS,))
        sender.start()
        assert one.socket.recv(1)  # the first is answered
        assert sums(front.session().step([1])) == [1]
        one.socket.setblocking(False)
        pongs = len(one.socket.recv(len(PONG) * PINGS)) // len(PONG)
        assert pongs < PINGS // 10
        one.socket.setblocking(True)
        sender.join()


def test_empty_fragments_of_a_message(front: Front) -> None:
    """Their 60 MB are followed by a ping, which is not answered before others are."""
    with RawSocket(front, f"{front.session().path}/stream") as one:

        def flood() -> None:
            one.socket.sendall(BEGINNING)
            for _ in range(FRAGMENTS // MANY):
                one.socket.sendall(FRAGMENT * MANY)
            one.socket.sendall(PING)

        sender = Thread(target=flood)
        sender.start()
        assert sums(front.session().step([1])) == [1]
        assert not select([one.socket], [], [], 0)[0]
        sender.join()
        assert one.socket.recv(2) == PONG
