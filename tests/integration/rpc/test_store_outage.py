"""A Redis that dies or hangs: refusals come soon, and afterwards everything continues by itself, exactly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .calls import WAYS, Api, Chunk, Refused, Result, Way, new_id, numbers

STORE_TIMEOUT_S = 0.3
# a step may wait for a commit, two retries and a read in between, each with a new connection
BOUND_S = 8 * STORE_TIMEOUT_S + 2.0

Outage = tuple[Callable[[], None], Callable[[], None]]  # begins and ends it


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def api(redis: RedisServer, counting_model: Path) -> Iterator[Api]:
    options = ["--store-timeout-ms", str(int(STORE_TIMEOUT_S * 1000)), "--retry-delay-ms", "150"]
    with ForkedServer([counting_model], redis.url, options) as server, server.channel() as channel:
        yield Api(server.stub(channel))


@pytest.fixture(params=["killed", "hung"])
def outage(request: pytest.FixtureRequest, redis: RedisServer) -> Iterator[Outage]:
    """It ends with the test, at the latest."""
    down = False

    def begin() -> None:
        nonlocal down
        down = True
        if request.param == "killed":
            redis.kill()
        else:
            redis.pause()

    def end() -> None:
        nonlocal down
        down = False
        if request.param == "killed":
            redis.restart()
        else:
            redis.wake()

    yield begin, end
    if down:
        end()


def soon(call: Callable[[], Result]) -> Result:
    began = time.monotonic()
    result = call()
    took = time.monotonic() - began
    assert took < BOUND_S, f"took {took:.1f} s: {result}"
    return result


def until_served(call: Callable[[], Result]) -> Result:
    """Repeats the call as long as the server says that the store is unavailable."""
    until = time.monotonic() + 20
    while (result := call()).code == "UNAVAILABLE":
        if time.monotonic() > until:
            raise TimeoutError(f"the service did not resume: {result}")
        time.sleep(result.retry_delay_ms / 1000)
    return result


def test_positioned_steps_are_refused_soon_and_not_doubled(api: Api, session: str, outage: Outage) -> None:
    """Three sessions, one for each way to send: hot ones, whose commit gets no answer."""
    begin, end = outage
    at: dict[Way, Position] = {}
    for way in WAYS:
        name = f"{session}-{way}"
        at[way] = api.send(way, Chunk(name, numbers(1, 2), api.open(name))).after
    begin()
    for _ in range(2):
        for way in WAYS:
            got = soon(lambda way=way: api.send(way, Chunk(f"{session}-{way}", numbers(3), at[way])))  # type: ignore[misc]
            assert (got.code, got.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
            assert got.retry_delay_ms == 150
    end()
    for way in WAYS:
        name = f"{session}-{way}"
        got = until_served(lambda way=way, name=name: api.send(way, Chunk(name, numbers(3), at[way])))  # type: ignore[misc]
        assert (got.sums, got.after.step) == ([6], 3)
        assert api.send(way, Chunk(name, numbers(4), got.after)).sums == [10]


def test_a_step_without_position_may_have_been_applied(api: Api, session: str, outage: Outage) -> None:
    begin, end = outage
    api.send("unary", Chunk(session, numbers(1), api.open(session)))
    begin()
    got = soon(lambda: api.send("unary", Chunk(session, numbers(2))))
    assert (got.code, got.reason) in (("ABORTED", "OUTCOME_UNKNOWN"), ("UNAVAILABLE", "STORE_UNAVAILABLE"))
    end()
    after = until_served(lambda: api.send("unary", Chunk(session, numbers(4))))
    assert after.sums[0] in ((5, 7) if got.code == "ABORTED" else (5,))


def test_a_hanging_store_leaves_the_outcome_open(redis: RedisServer, api: Api, session: str) -> None:
    at = api.send("unary", Chunk(session, numbers(1), api.open(session))).after
    redis.pause()
    try:
        for way in ("unary", "batch"):
            got = soon(lambda way=way: api.send(way, Chunk(session, numbers(2))))  # type: ignore[misc]
            if way == "unary":  # it was hot, so it got as far as its commit
                assert (got.code, got.reason) == ("ABORTED", "OUTCOME_UNKNOWN")
                assert "may have been applied" in got.message
            else:
                assert (got.code, got.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
    finally:
        redis.wake()
    got = until_served(lambda: api.send("unary", Chunk(session, numbers(4))))
    assert got.sums in ([5], [7])
    assert got.after.generation == at.generation


def test_every_other_call_is_refused_soon(api: Api, session: str, outage: Outage) -> None:
    begin, end = outage
    at = api.send("unary", Chunk(session, numbers(1), api.open(session))).after
    begin()
    reset = pb.ResetRequest.Item(session=session, generation=at.generation, request_id=new_id())
    fork = pb.ForkRequest.Item(source=session, target=f"{session}-2", request_id=new_id())
    delete = pb.DeleteRequest.Item(session=session, generation=at.generation)
    asks: list[tuple[str, Any]] = [
        ("Open", pb.OpenRequest(model="count", session=f"{session}-new", request_id=new_id())),
        ("GetState", pb.GetStateRequest(model="count", session=session)),
        ("GetSession", pb.GetSessionRequest(model="count", session=session)),
        ("ListSessions", pb.ListSessionsRequest(model="count")),
    ]
    for method, request in asks:
        with pytest.raises(Refused) as refused:
            api.call(method, request, timeout_s=BOUND_S)
        got = refused.value.result
        assert (got.code, got.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
        assert got.retry_delay_ms > 0
    changes: list[tuple[str, Any]] = [
        ("Reset", pb.ResetRequest(model="count", items=[reset])),
        ("Fork", pb.ForkRequest(model="count", items=[fork])),
        ("Delete", pb.DeleteRequest(model="count", items=[delete])),
    ]
    for method, change in changes:
        (result,) = api.call(method, change, timeout_s=BOUND_S).results
        assert pb.Reason.Name(result.error.reason) == "STORE_UNAVAILABLE"
        assert result.error.retry_delay_ms == 150
    assert api.call("ListModels", pb.ListModelsRequest()).models  # needs no store
    end()
    got = until_served(lambda: api.send("unary", Chunk(session, numbers(1), at)))
    assert got.sums == [2] or got.reason == "SESSION_NOT_FOUND"


def test_many_sessions_go_on_exactly_where_they_were(api: Api, session: str, outage: Outage) -> None:
    """Everything is sent again until it is acknowledged, through the outage. The sums show what was lost or doubled."""
    begin, end = outage
    names = [f"{session}-{index}" for index in range(16)]
    at = {name: api.open(name) for name in names}
    for step in range(12):
        if step == 4:
            begin()
            got = soon(lambda step=step: api.send("stream", Chunk(names[0], numbers(step), at[names[0]])))  # type: ignore[misc]
            assert got.code == "UNAVAILABLE"
            end()
        for index, name in enumerate(names):
            chunk, way = Chunk(name, numbers(step, index), at[name]), WAYS[(step + index) % 3]
            if step == 4 and index == 0:
                chunk = Chunk(name, numbers(step), at[name])
            got = until_served(lambda way=way, chunk=chunk: api.send(way, chunk))  # type: ignore[misc]
            expected = sum(range(step + 1)) + index * (step + 1)
            assert got.sums[-1] == expected
            at[name] = got.after
    assert [api.position(name) for name in names] == list(at.values())
    assert np.unique([position.step for position in at.values()]).tolist() == [23, 24]
