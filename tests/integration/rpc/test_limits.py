"""Full queues, deadlines, callers that leave, and a server that shuts down.

In each case, requests are in flight to a Redis that does not answer yet.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position, advance
from grpc_health.v1 import health_pb2, health_pb2_grpc

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .calls import Api, Chunk, Way, frame_message, numbers, step_message
from .talk import Talk

# long enough that no timeout passes while a test looks
OPTIONS = ["--store-timeout-ms", "20000", "--max-session-requests", "3", "--max-requests", "6"]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer({"appendfsync": "no"}) as server:
        yield server


@pytest.fixture(scope="module")
def server(redis: RedisServer, counting_model: Path) -> Iterator[ForkedServer]:
    with ForkedServer([counting_model], redis.url, OPTIONS) as process:
        yield process


@pytest.fixture(scope="module")
def api(server: ForkedServer) -> Iterator[Api]:
    with server.channel() as channel:
        yield Api(server.stub(channel))


@contextmanager
def paused(redis: RedisServer) -> Iterator[None]:
    redis.pause()
    try:
        yield
    finally:
        redis.wake()


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the condition did not come true")
        time.sleep(0.01)  # between two checks of the condition


CLOSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
"""The codes for a call that arrives while gRPC closes: refused, or ignored until the time for closing is over."""


def is_serving(channel: grpc.Channel) -> bool:
    request = health_pb2.HealthCheckRequest(service="cellkeeper.v1.Cellkeeper")
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=2)
    except grpc.RpcError as error:
        if error.code() in CLOSING:
            return False
        raise
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def places(at: Position, count: int) -> list[Position]:
    """Returns the positions of `count` pipelined steps of input 1."""
    found = [at]
    for _ in range(count - 1):
        found.append(advance(found[-1], numbers(1).tobytes(), 4))
    return found


def test_a_sessions_queue_is_full(redis: RedisServer, api: Api, session: str) -> None:
    at = api.open(session)
    with Talk(api) as talk:
        with paused(redis):
            first = talk.send(Chunk(session, numbers(1), at, acked=0))  # hot: computed, and its commit is in flight
            # after it, whatever has to be decided on the record waits
            waiting = [talk.send(Chunk(session, numbers(1), at, acked=0)) for _ in range(3)]
            refused = talk.send(Chunk(session, numbers(1), at, acked=0))
            number, got = talk.receive()
            assert number == refused
            assert (got.code, got.reason, got.field) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", "session")
            assert got.retry_delay_ms > 0
            assert "this session's queue is full (3 " in got.message
        replies = talk.receive_all(4)
    assert [replies[number].replayed for number in (first, *waiting)] == [False, True, True, True]
    assert all(reply.sums == [1] for reply in replies.values())


def test_the_servers_queue_is_full(redis: RedisServer, api: Api, session: str) -> None:
    names = [f"{session}-{index}" for index in range(7)]
    at = [api.open(name) for name in names]
    with Talk(api) as talk:
        with paused(redis):
            sent = [talk.send(Chunk(name, numbers(1), place)) for name, place in zip(names, at, strict=True)]
            number, got = talk.receive()
            assert (number, got.code, got.reason, got.field) == (sent[6], "RESOURCE_EXHAUSTED", "QUEUE_FULL", "")
            assert got.retry_delay_ms > 0
            for way in ("unary", "batch"):
                refused = api.send(way, Chunk(names[6], numbers(1), at[6]))
                assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
                assert refused.retry_delay_ms > 0
        assert all(reply.sums == [1] for reply in talk.receive_all(6).values())
    assert api.send("unary", Chunk(names[6], numbers(1), at[6])).sums == [1]


@pytest.mark.parametrize("frame_way", ["batch", "stream"])
def test_a_frames_deadline_drops_what_waits(
    redis: RedisServer, server: ForkedServer, api: Api, session: str, frame_way: Way
) -> None:
    at = api.open(session)
    behind = advance(at, numbers(1).tobytes(), 4)
    with Talk(api) as talk:
        with paused(redis):
            first = talk.send(Chunk(session, numbers(1), at))
            late = talk.send(Chunk(session, numbers(2), behind), timeout_ms=100)  # computed, and waits for its commit
            wait_until(lambda: server.metric("cellkeeper_queue_depth") == 2)
            frame = frame_message("count", [Chunk(session, numbers(9), at)], timeout_ms=100)
            (got,) = api.send_frame(frame_way, frame)  # not at the cached position, so it waits for the record
            assert (got.code, got.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_PASSED")
        replies = talk.receive_all(2)
    assert replies[first].sums == [1]
    assert (replies[late].code, replies[late].reason) == ("DEADLINE_EXCEEDED", "DEADLINE_PASSED")
    assert api.position(session) == behind
    assert api.send("unary", Chunk(session, numbers(3), behind)).sums == [4]


def test_a_unary_calls_deadline_is_the_callers(redis: RedisServer, api: Api, session: str) -> None:
    at = api.open(session)
    with paused(redis):
        got = api.send("unary", Chunk(session, numbers(1), at), timeout_s=0.1)
        assert got.code == "DEADLINE_EXCEEDED"
    wait_until(lambda: api.position(session).step == 1)  # its commit had been sent and cannot be cancelled
    again = api.send("unary", Chunk(session, numbers(1), at))
    assert (again.sums, again.replayed) == ([1], True)


def test_a_caller_that_is_gone_is_not_served(redis: RedisServer, server: ForkedServer, api: Api, session: str) -> None:
    at = api.open(session)
    before = server.metric("cellkeeper_rejections_total", reason="caller_gone")
    with Talk(api) as talk:
        with paused(redis):
            first = talk.send(Chunk(session, numbers(1), at))
            wait_until(lambda: server.metric("cellkeeper_queue_depth") == 1)
            call = api.stub.Step.future(step_message("count", Chunk(session, numbers(5), at)), timeout=30)
            with Talk(api) as other:
                other.send(Chunk(session, numbers(7), at))
                wait_until(lambda: server.metric("cellkeeper_queue_depth") == 3)
                call.cancel()
            wait_until(lambda: server.metric("cellkeeper_rejections_total", reason="caller_gone") == before + 2)
        assert talk.receive()[0] == first
    assert api.position(session).step == 1
    with pytest.raises(grpc.FutureCancelledError):
        call.result()


def test_a_connections_calls_beyond_its_limit_stay_with_the_client(
    redis: RedisServer, counting_model: Path, session: str
) -> None:
    options = [*OPTIONS, "--max-connection-rpcs", "1"]
    no_waiting = [("grpc.http.max_concurrent_streams_reject_on_client", 1), ("grpc.enable_retries", 0)]
    with (
        ForkedServer([counting_model], redis.url, options) as server,
        server.channel() as patient,
        grpc.insecure_channel(server.target, no_waiting) as other,
    ):
        api, impatient = Api(server.stub(patient)), Api(server.stub(other))
        at, second = api.open(session), api.open(f"{session}-second")
        third = impatient.open(f"{session}-third")
        with paused(redis):
            first = api.stub.Step.future(step_message("count", Chunk(session, numbers(1), at)), timeout=30)
            wait_until(lambda: server.metric("cellkeeper_queue_depth") == 1)
            held = api.stub.Step.future(
                step_message("count", Chunk(f"{session}-second", numbers(1), second)), timeout=30
            )
            taken = impatient.stub.Step.future(
                step_message("count", Chunk(f"{session}-third", numbers(1), third)), timeout=30
            )
            wait_until(lambda: server.metric("cellkeeper_queue_depth") == 2)
            refused = impatient.send("unary", Chunk(f"{session}-third", numbers(1), third))
            assert refused.code == "RESOURCE_EXHAUSTED"
            assert server.metric("cellkeeper_queue_depth") == 2
        assert [call.result().position.step for call in (first, held, taken)] == [1, 1, 1]


def test_a_server_that_shuts_down_finishes_and_takes_nothing_new(counting_model: Path, session: str) -> None:
    with (
        RedisServer({"appendfsync": "no"}) as redis,
        ForkedServer([counting_model], redis.url, ["--store-timeout-ms", "20000"]) as server,
        server.channel() as channel,
    ):
        api = Api(server.stub(channel))
        at, other = api.open(session), api.open(f"{session}-other")
        with Talk(api) as talk:
            with paused(redis):
                first = [talk.send(Chunk(session, numbers(1), place, acked=0)) for place in places(at, 5)]
                wait_until(lambda: server.metric("cellkeeper_queue_depth") == 5)
                server.send_signal(signal.SIGTERM)
                wait_until(lambda: not is_serving(channel))
                got = api.send("unary", Chunk(f"{session}-other", numbers(1), other), timeout_s=5)
                assert got.code in [code.name for code in CLOSING]
            results = talk.receive_all(5)
            with pytest.raises(StopIteration):  # it was asked to send no more, and the stream is over
                talk.receive()
            (why,) = talk.asked_to_end
            assert why.reason == pb.DRAINING
            assert why.retry_delay_ms > 0
        assert [results[index].sums for index in first] == [[1], [2], [3], [4], [5]]
        server.wait_for("stopped")
        assert server.stop() == 0
        server.restart()
        # a channel with its own connections: those of the other wait before they reconnect
        with grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]) as again:
            after = Api(server.stub(again))
            assert (after.position(session).step, after.position(f"{session}-other").step) == (5, 0)
