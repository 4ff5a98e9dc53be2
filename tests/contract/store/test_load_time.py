"""The time of a load from Redis is bounded by what it reads.

One call for many records stays well within the store's timeout, whatever some of them contain, and a slow line alone
makes no load time out (docs/adr/204).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import LOAD_BYTES, Load, Postponed, StoreError
from cellkeeper_service.store.open import open_store

from testing.redis_server import RedisServer

from .records import committed, create, key

TIMEOUT_MS = 1000  # for the test with a slow line, which takes several times as long
LARGE, SMALL = 32, 1000
PIECE_BYTES, PIECE_SECONDS = 65536, 0.05


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server with many small records and four times as many large ones as one load examines."""
    with RedisServer({"appendonly": "no"}) as server:
        store = open_store(server.url, timeout_ms=10_000)
        for at in large():
            committed(store, create(at, checkpoint=bytes(LOAD_BYTES + 1)))
        (made,) = {len(store.commit_many([create(at) for at in small()]))}
        assert made == SMALL
        store.close()
        yield server


def large() -> list[SessionKey]:
    return [key(f"large-{index}") for index in range(LARGE)]


def small() -> list[SessionKey]:
    return [key(f"small-{index}") for index in range(SMALL)]


def test_no_load_of_many_records_times_out(server: RedisServer) -> None:
    store = open_store(server.url)
    left: list[SessionKey] = [*large(), *small()]
    alone: list[SessionKey] = []
    while left:
        found = store.load_many([Load(at, touch=False) for at in left])
        again: list[SessionKey] = []
        for at, record in zip(left, found, strict=True):
            assert not isinstance(record, StoreError) or isinstance(record, Postponed), record
            if isinstance(record, Postponed):
                (alone if record.alone else again).append(at)
        assert len(again) < len(left)
        left = again
    assert alone == large()
    store.close()


def test_a_slow_line_makes_no_load_time_out(server: RedisServer) -> None:
    """The timeout applies to each wait for bytes; a whole reply may take many times as long."""
    with slow_line(server.port) as port:
        store = open_store(f"redis://127.0.0.1:{port}/0", timeout_ms=TIMEOUT_MS)
        began = time.monotonic()
        found = store.load_many([Load(at, touch=False) for at in [large()[0], *small()]])
        assert isinstance(found[0], Postponed)
        assert all(isinstance(record, Record) for record in found[1:])
        (whole,) = store.load_many([Load(large()[0], touch=False)])
        assert isinstance(whole, Record)
        assert time.monotonic() - began > 3 * TIMEOUT_MS / 1000
        store.close()


@contextmanager
def slow_line(port: int) -> Iterator[int]:
    """Yields a port that forwards to the given one, with replies at 10 Mbit/s."""
    listening = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, sink: socket.socket, seconds: float) -> None:
        try:
            while data := source.recv(PIECE_BYTES):
                sink.sendall(data)
                threading.Event().wait(seconds)  # the line's speed, not a wait for an event
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", port))
            for way in ((near, far, 0.0), (far, near, PIECE_SECONDS)):
                threading.Thread(target=carry, args=way, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        listening.close()
