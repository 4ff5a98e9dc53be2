"""/metrics after a run agrees with what the run did."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.forked_server import ForkedServer
from testing.wire_client import Chunk, Position, Refused, Replica, Result

MODEL = "count"
SESSIONS = [f"secret-{index}" for index in range(8)]
TURNS = 5
FRAME_STEPS = 2


@pytest.fixture
async def served(counting_model: Path, tmp_path: Path) -> AsyncIterator[tuple[ForkedServer, Replica]]:
    store = f"sqlite:{tmp_path / 'store.db'}"
    with ForkedServer([counting_model], store, ("--device", "cpu")) as server:
        async with Replica(server.target) as replica:
            yield server, replica


async def opened(replica: Replica, session: str) -> Position:
    reply = await replica.call("Open", pb.OpenRequest(model=MODEL, session=session, request_id=os.urandom(16)))
    return Position.of(reply.position)


def chunk(session: str, position: Position, steps: int, value: float = 1.0) -> Chunk:
    return Chunk(MODEL, session, np.full((steps, 1), value, np.float32), position, position.step)


async def run_of_frames(replica: Replica) -> list[Chunk]:
    """Sends TURNS frames over all sessions in turn. Returns the chunks of the last frame."""
    chunks: list[Chunk] = []
    positions = [await opened(replica, session) for session in SESSIONS]
    for _ in range(TURNS):
        chunks = [chunk(*where, FRAME_STEPS) for where in zip(SESSIONS, positions, strict=True)]
        answers = await replica.stream(chunks)
        positions = [answer.position for answer in answers if isinstance(answer, Result)]
        assert len(positions) == len(SESSIONS)
    return chunks


async def test_counts_are_those_of_the_run(served: tuple[ForkedServer, Replica]) -> None:
    server, replica = served
    chunks = await run_of_frames(replica)
    for answer in await replica.unaries(chunks[:3]):
        assert isinstance(answer, Result)
        assert answer.replayed

    applied = TURNS * len(SESSIONS)
    assert server.metric("cellkeeper_steps_total", model=MODEL) == applied * FRAME_STEPS
    assert server.metric("cellkeeper_duplicates_replayed_total", model=MODEL) == 3
    assert server.metric("cellkeeper_chunks_total", model=MODEL) == applied + 3
    for phase in ("queue", "load", "compute", "commit", "total"):
        assert server.metric("cellkeeper_chunk_seconds_count", model=MODEL, phase=phase) == applied + 3
    created = len(SESSIONS)
    assert server.metric("cellkeeper_commits_total", result="committed") == applied + created
    assert server.metric("cellkeeper_commits_total") == applied + created
    assert server.metric("cellkeeper_hot_sessions", model=MODEL) == len(SESSIONS)
    assert server.metric("cellkeeper_frames_total", direction="in") == TURNS
    assert server.metric("cellkeeper_frame_items_total", direction="in") == applied
    assert server.metric("cellkeeper_frame_items_total", direction="out") == applied
    assert server.metric("cellkeeper_store_items_total", call="commit") == applied + created
    assert server.metric("cellkeeper_store_errors_total") == 0
    assert server.metric("cellkeeper_rejections_total") == 0
    assert server.metric("cellkeeper_queue_depth") == 0


async def test_frames_are_computed_in_batches(served: tuple[ForkedServer, Replica]) -> None:
    server, replica = served
    await run_of_frames(replica)
    calls = server.metric("cellkeeper_batch_size_count", model=MODEL)
    rows = server.metric("cellkeeper_batch_size_sum", model=MODEL)
    assert server.metric("cellkeeper_computed_steps_total", model=MODEL) == rows * FRAME_STEPS
    assert calls < rows
    assert server.metric("cellkeeper_batch_size_bucket", model=MODEL, le="1.0") < calls


async def test_rejections_are_counted_by_reason(served: tuple[ForkedServer, Replica]) -> None:
    server, replica = served
    start = await opened(replica, "a")
    first = chunk("a", start, 1)
    answer = await replica.unary(first)
    assert isinstance(answer, Result)
    here, nan = answer.position, float("nan")
    done = {
        "step_gap": [chunk("a", Position(here.generation, 9, here.head), 1)],
        "step_conflict": [chunk("a", start, 1, value=2.0)] * 2,
        "history_changed": [chunk("a", Position(here.generation, 1, bytes(8)), 1)],
        "generation_changed": [chunk("a", Position(bytes(15) + b"\1", 1, here.head), 1)],
        "session_not_found": [chunk("nobody", here, 1)] * 3,
        "non_finite_input": [chunk("a", here, 1, value=nan)],
    }
    for reason, chunks in done.items():
        for each in chunks:
            refused = await replica.unary(each)
            assert isinstance(refused, Refused)
            assert refused.reason.lower() == reason
    twice = await replica.batch([first, first, chunk("a" * 300, start, 1)])
    assert [answer.reason if isinstance(answer, Refused) else "" for answer in twice] == [
        "", "DUPLICATE_SESSION", "INVALID_FIELD",
    ]  # fmt: skip
    reset = pb.ResetRequest(model=MODEL, items=[pb.ResetRequest.Item(session="a", generation=b"short")])
    assert (await replica.call("Reset", reset)).results[0].error.reason == pb.INVALID_FIELD

    expected = {reason: len(chunks) for reason, chunks in done.items()} | {"duplicate_session": 1, "invalid_field": 2}
    shown = {reason: server.metric("cellkeeper_rejections_total", reason=reason) for reason in expected}
    assert shown == expected
    assert server.metric("cellkeeper_rejections_total") == sum(expected.values())


async def test_no_session_id_is_shown(served: tuple[ForkedServer, Replica]) -> None:
    server, replica = served
    await run_of_frames(replica)
    await replica.unary(chunk("secret-nobody", Position(bytes(16), 0, bytes(8)), 1))
    assert "secret" not in server.metrics()


async def test_promtool_finds_nothing_wrong(served: tuple[ForkedServer, Replica]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on the PATH")
    server, replica = served
    await run_of_frames(replica)
    scrape = server.metrics()
    assert check_metrics(promtool, scrape) == (0, "")


def check_metrics(promtool: str, scrape: str) -> tuple[int, str]:
    """Returns promtool's exit status and its complaints."""
    words = [promtool, "check", "metrics"]
    checked = subprocess.run(words, input=scrape, capture_output=True, text=True, timeout=60)
    return checked.returncode, checked.stdout + checked.stderr
