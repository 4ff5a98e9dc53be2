"""Frames of an open stream that are begun and never finished.

Their bytes are bounded, and their sender loses only its own streams.
"""

from __future__ import annotations

import asyncio
import json
import queue
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cellkeeper_service.errors import Rejection
from cellkeeper_service.rpc import half_sent
from cellkeeper_service.rpc.half_sent import PATIENCE_SWEEPS, HalfSent

from testing.server_process import ServerProcess
from verification.load.attacker import plans
from verification.load.hostile import attack
from verification.load.vitals import MIB, peak_rss_bytes, rss_bytes

from .calls import Api, Chunk, numbers, step_message
from .talk import Talk

MOST = 32 * MIB
"""Two messages of ordinary size."""
SENT = 6 * MOST
HELD = 3 * MOST // 2
"""The attack has more than the limit, and waits until the server has ended some of its streams. So the outcome depends
neither on a rate nor on when a busy machine runs the server, which does not limit what arrives until it counts. It also
waits until the first frame of a stream is answered: the server does not count what it had received behind that, as much
as the stream's window, which gRPC raises to many MiB on a fast connection to a busy server."""
STREAMS = 16


@pytest.fixture
def server(counting_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess([counting_model], "memory:", ["--max-request-bytes", str(MOST)]) as server:
        yield server


@pytest.mark.parametrize("deaf", [False, True])
def test_half_sent_frames_are_bounded_and_cost_their_own_connection(server: ServerProcess, deaf: bool) -> None:
    """deaf: it reads no reply, so that a stream that has answered everything cannot end normally."""
    (plan,) = plans(["half-frame"], "", 100.0, public=True)
    plan = replace(plan, most_bytes=SENT, most_held_bytes=HELD, bytes_per_second=SENT, deaf=deaf)
    plan = replace(plan, connections=2, streams=STREAMS, after_reply=True)
    with server.channel() as channel, Talk(Api(server.stub(channel))) as talk:
        at = Api(server.stub(channel)).open("beside")
        talk.send(Chunk("beside", numbers(1), at))
        at = talk.receive()[1].after
        before = rss_bytes(server.pid)
        sent = asyncio.run(attack(server.target, plan))
        assert sent.bytes > 0.9 * SENT, json.dumps(sent.lost)  # or the server has ended too little
        assert peak_rss_bytes(server.pid) - before < 4 * MOST
        talk.send(Chunk("beside", numbers(1), at))
        assert talk.receive()[1].sums == [2]
        assert not talk.asked_to_end
        if deaf:
            server.wait_for("of a stream that was ended: cancelling it")
        else:
            assert server.metric("cellkeeper_rejections_total", reason="queue_full") > 0
        assert not sent.lost  # its connections stay, which somebody else may use too


def test_an_idle_stream_beside_much_other_traffic_ends_with_a_reason(counting_model: Path) -> None:
    """The server cannot tell if a connection's bytes belong to the stream's next frame. Acknowledged steps stay."""
    words = ["--max-message-bytes", "1000000", "--max-request-bytes", "2000000"]
    with ServerProcess([counting_model], "memory:", words) as server, server.channel() as channel:
        api = Api(server.stub(channel))
        with Talk(api) as talk:
            talk.send(Chunk("idle", numbers(1), api.open("idle")))
            at = talk.receive()[1].after
            ended: queue.Queue[str] = queue.Queue()
            talk.when_ended(lambda call: ended.put(f"{call.code().name}: {call.details()}"))
            junk = Chunk("busy", np.zeros((200_000, 1), np.float32), api.open("busy"))
            while ended.empty():
                with pytest.raises(grpc.RpcError):  # it has too many time steps
                    api.stub.Step(step_message("count", junk), timeout=30)
            assert re.match("RESOURCE_EXHAUSTED: incomplete frames may hold more than 2000000 bytes, ", ended.get())
        with Talk(api) as talk:
            talk.send(Chunk("idle", numbers(1), at))
            assert talk.receive()[1].sums == [2]


class Loop(asyncio.SelectorEventLoop):
    """delays: for how long each timer was set."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object, **how: Any
    ) -> asyncio.TimerHandle:
        self.delays.append(delay)
        return super().call_later(delay, callback, *args, **how)


class PausedClock:
    """The clocks of a process that did not run for `paused` seconds."""

    def __init__(self) -> None:
        self.paused = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.paused

    def thread_time(self) -> float:
        return time.thread_time()


def test_a_pause_of_the_process_neither_delays_the_next_count_nor_cancels_a_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pause is in the middle of a sweep, after a stream was told to end, which had no time to do so."""
    clock = PausedClock()
    monkeypatch.setattr(half_sent, "time", clock)

    async def sweeps_until_cancelled(loop: Loop) -> list[float]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            far = socket.create_connection(listening.getsockname())
            near, (host, port) = listening.accept()
            streams = HalfSent(1000, 10_000)
            ended: list[int] = []
            cancelled = asyncio.Event()

            def finish(why: Rejection) -> None:
                ended.append(len(loop.delays))
                clock.paused += 0.5

            with far, near, streams.counted(f"ipv4:{host}:{port}", finish, cancelled.set):
                far.sendall(bytes(5000))
                await asyncio.wait_for(cancelled.wait(), 60)  # because the stream does not end
            return loop.delays[ended[0] :]

    loop = Loop()
    try:
        delays = loop.run_until_complete(sweeps_until_cancelled(loop))
    finally:
        loop.close()
    assert len(delays) >= PATIENCE_SWEEPS
    assert max(delays) < 5
