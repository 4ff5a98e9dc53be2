"""Frames of an open stream that are begun and never ended: what has come of them is bounded, and who sends them loses
streams of its own alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.load.attacker import plans
from tests.load.hostile import attack
from tests.load.vitals import MIB, peak_rss_bytes, rss_bytes
from tests.server_process import ServerProcess

from .calls import Api, Chunk, numbers
from .talk import Talk

MOST = 32 * MIB
"""Two messages of the ordinary size."""
SENT = 320 * MIB


@pytest.fixture
def server(counting_model: Path) -> Iterator[ServerProcess]:
    with ServerProcess([counting_model], "memory:", ["--max-request-bytes", str(MOST)]) as server:
        yield server


@pytest.mark.parametrize("deaf", [False, True])
def test_half_sent_frames_are_bounded_and_cost_their_own_connection(server: ServerProcess, deaf: bool) -> None:
    """deaf: it takes no reply, so that a stream that has answered everything cannot end by itself."""
    (plan,) = plans(["half-frame"], "", 2.0 if deaf else 0.8, public=True)
    plan = replace(plan, bytes_per_second=int(SENT / plan.seconds), deaf=deaf, connections=2)
    with server.channel() as channel, Talk(Api(server.stub(channel))) as talk:
        at = Api(server.stub(channel)).open("beside")
        talk.send(Chunk("beside", numbers(1), at))
        at = talk.receive()[1].after
        before = rss_bytes(server.pid)
        sent = asyncio.run(attack(server.target, plan))
        assert sent.bytes > 8 * MOST, json.dumps(sent.lost)
        assert peak_rss_bytes(server.pid) - before < 5 * MOST  # what comes until the kernel is asked again is held too
        talk.send(Chunk("beside", numbers(1), at))
        assert talk.receive()[1].sums == [2]
        assert not talk.asked_to_end
        if deaf:
            assert sent.lost["closed"] > 0  # its connections were cut
        else:
            assert server.metric("cellkeeper_rejections_total", reason="queue_full") > 0
