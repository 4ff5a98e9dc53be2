"""The time of a load from Redis is bounded by what it reads.

One call for many records stays well within the store's timeout, whatever some of them contain, and a slow line alone
makes no load time out (docs/adr/204).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import LOAD_BYTES, Load, Postponed, StoreError
from cellkeeper_service.store.open import open_store

from testing.redis_server import RedisServer

from .records import committed, create, key

DEFAULT_TIMEOUT_S = 1.0
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
    """By the processor time that the server takes for it, since the machine may be busy with other things, too."""
    store = open_store(server.url, timeout_ms=10_000)
    left: list[SessionKey] = [*large(), *small()]
    alone: list[SessionKey] = []
    while left:
        before = processor_s(server)
        found = store.load_many([Load(at, touch=False) for at in left])
        assert processor_s(server) - before < DEFAULT_TIMEOUT_S
        again: list[SessionKey] = []
        examined = len(alone)
        for at, record in zip(left, found, strict=True):
            assert not isinstance(record, StoreError) or isinstance(record, Postponed), record
            if isinstance(record, Postponed):
                (alone if record.alone else again).append(at)
        assert len(alone) - examined <= LARGE / 4
        assert len(again) < len(left)
        left = again
    assert alone == large()
    store.close()


def processor_s(server: RedisServer) -> float:
    """Returns how long the server has run on a processor."""
    with server.client() as client:
        info = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


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
    ends: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def carry(source: socket.socket, sink: socket.socket, seconds: float) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                sink.sendall(data)
                threading.Event().wait(seconds)  # the line's speed, not a wait for an event

    def accept() -> None:
        with suppress(OSError):  # it is shut down
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", port))
                ends.extend((near, far))
                for way in ((near, far, 0.0), (far, near, PIECE_SECONDS)):
                    threads.append(threading.Thread(target=carry, args=way))
                    threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for end in ends:
                with suppress(OSError):  # the other side has gone
                    end.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for end in ends:
                end.close()
