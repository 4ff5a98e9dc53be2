"""Frames of an open stream that are begun and never finished.

Their bytes are bounded, and their sender loses only its own streams.
"""

from __future__ import annotations

import asyncio
import json
import queue
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from testing.server_process import ServerProcess
from verification.load.attacker import plans
from verification.load.hostile import attack
from verification.load.vitals import MIB, peak_rss_bytes, rss_bytes

from .calls import Api, Chunk, numbers, step_message
from .talk import Talk

MOST = 32 * MIB
"""Two messages of ordinary size."""
SENT = 320 * MIB


@pytest.fixture
def server(counting_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess([counting_model], "memory:", ["--max-request-bytes", str(MOST)]) as server:
        yield server


@pytest.mark.parametrize("deaf", [False, True])
def test_half_sent_frames_are_bounded_and_cost_their_own_connection(server: ServerProcess, deaf: bool) -> None:
    """deaf: it reads no reply, so that a stream that has answered everything cannot end normally."""
    (plan,) = plans(["half-frame"], "", 40.0, public=True)
    rate = SENT // 2 if deaf else SENT
    plan = replace(plan, most_bytes=SENT, bytes_per_second=rate, deaf=deaf, connections=2)
    with server.channel() as channel, Talk(Api(server.stub(channel))) as talk:
        at = Api(server.stub(channel)).open("beside")
        talk.send(Chunk("beside", numbers(1), at))
        at = talk.receive()[1].after
        before = rss_bytes(server.pid)
        sent = asyncio.run(attack(server.target, plan))
        assert sent.bytes > 0.9 * SENT, json.dumps(sent.lost)
        assert peak_rss_bytes(server.pid) - before < 5 * MOST  # including what arrives until the kernel is asked again
        talk.send(Chunk("beside", numbers(1), at))
        assert talk.receive()[1].sums == [2]
        assert not talk.asked_to_end
        if deaf:
            assert sent.lost["closed"] > 0  # its connections were cut
        else:
            assert server.metric("cellkeeper_rejections_total", reason="queue_full") > 0


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
