"""Several writers of one store: two servers that disagree, and records that somebody has tampered with."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import advance
from cellkeeper_service.domain.record import Record

from testing.forked_server import ForkedServer

from .calls import WAYS, Api, Chunk, Result, Way, frame_message, new_id, numbers
from .record_changes import change_record

HAMMERING_S = 15.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:{tmp_path_factory.mktemp('two') / 'sessions.db'}"


@pytest.fixture(scope="module")
def apis(counting_model: Path, store: str) -> Iterator[list[Api]]:
    with (
        ForkedServer([counting_model], store) as one,
        ForkedServer([counting_model], store) as two,
        one.channel() as first,
        two.channel() as second,
    ):
        yield [Api(one.stub(first)), Api(two.stub(second))]


def test_a_session_goes_from_server_to_server(apis: list[Api], session: str) -> None:
    """Each server detects that its hot copy is stale, and no client notices."""
    at = apis[0].open(session)
    for step in range(12):
        way = WAYS[step % 3]
        chunk = Chunk(session, numbers(1), at)
        got = apis[step % 2].send(way, chunk)
        assert (got.sums, got.replayed) == ([step + 1], False)
        again = apis[1 - step % 2].send(way, chunk)
        assert (again.sums, again.replayed, again.after) == ([step + 1], True, got.after)
        at = got.after
    for api in apis:
        assert api.position(session) == at


def test_writers_that_lose_twice_are_told_so_and_nothing_is_applied_twice(apis: list[Api], session: str) -> None:
    """Steps without position, from both sides at once, until one side has lost two races."""
    start = apis[0].open(session)
    enough = threading.Event()
    until = time.monotonic() + HAMMERING_S

    def hammer(api: Api) -> list[Result]:
        found = []
        while not enough.is_set() and time.monotonic() < until:
            found.append(api.send("unary", Chunk(session, numbers(1))))
            if found[-1].reason == "COMMIT_CONFLICT":
                enough.set()
        return found

    with ThreadPoolExecutor(6) as threads:
        results = [result for found in threads.map(hammer, apis * 3) for result in found]
    codes = Counter((result.code, result.reason) for result in results)
    assert set(codes) <= {("OK", ""), ("ABORTED", "COMMIT_CONFLICT")}
    assert codes["ABORTED", "COMMIT_CONFLICT"], f"nobody lost two races in {len(results)} steps"
    applied = [result.sums[0] for result in results if result.code == "OK"]
    assert sorted(applied) == list(range(1, len(applied) + 1))
    inputs = numbers(*[1] * len(applied))
    for api in apis:
        assert api.position(session) == advance(start, inputs.tobytes(), 4)
    lost = [result.position for result in results if result.code == "ABORTED"]
    assert all(position is not None and position.step <= len(applied) for position in lost)


@pytest.mark.parametrize("frame_way", ["batch", "stream"])
def test_a_record_whose_log_overflows_fails_alone(apis: list[Api], store: str, session: str, frame_way: Way) -> None:
    names = [f"{session}-{index}" for index in range(3)]
    at = [apis[0].send("unary", Chunk(name, numbers(1), apis[0].open(name))).after for name in names]

    def overflow(record: Record) -> Record:
        log = numbers(3e38, 3e38)
        header = record.header
        position = advance(header.position, log.tobytes(), 4)
        return replace(record, header=header.replace(position=position), log=record.log + log.tobytes())

    change_record(store, "count", names[1], overflow)
    at[1] = apis[0].position(names[1])
    chunks = [Chunk(name, numbers(1), place) for name, place in zip(names, at, strict=True)]
    left, got, right = apis[1].send_frame(frame_way, frame_message("count", chunks))
    assert left.sums == right.sums == [2]
    assert (got.code, got.reason) == ("INTERNAL", "INTERNAL_ERROR")
    unary = apis[1].send("unary", chunks[1])
    assert (unary.code, unary.reason, unary.message) == ("INTERNAL", "INTERNAL_ERROR", got.message)
    assert apis[1].position(names[1]) == at[1]


@pytest.mark.parametrize("frame_way", ["batch", "stream"])
def test_a_record_whose_state_has_another_size_fails_alone(
    apis: list[Api], store: str, session: str, frame_way: Way
) -> None:
    names = [f"{session}-{index}" for index in range(3)]
    at = [apis[0].send("unary", Chunk(name, numbers(1), apis[0].open(name))).after for name in names]
    change_record(store, "count", names[1], lambda record: replace(record, checkpoint=b"abc"))
    chunks = [Chunk(name, numbers(1), place) for name, place in zip(names, at, strict=True)]
    left, got, right = apis[1].send_frame(frame_way, frame_message("count", chunks))
    assert (got.code, got.reason, got.position) == ("DATA_LOSS", "DATA_LOSS", at[1])
    assert "the session's record is damaged" in got.message
    assert left.sums == right.sums == [2]
    reset = pb.ResetRequest.Item(session=names[1], generation=at[1].generation, request_id=new_id())
    apis[1].call("Reset", pb.ResetRequest(model="count", items=[reset]))
    assert apis[1].send("unary", Chunk(names[1], numbers(7))).sums == [7]
    after = apis[1].send_frame(frame_way, frame_message("count", [chunks[0], chunks[2]]))
    assert [result.replayed for result in after] == [True, True]
