"""Calls whose messages do not arrive.

They end in time, only so many may be slow at once, and a client that opens many of them takes only its own calls'
places.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc

from testing.forked_server import ForkedServer
from verification.load.attacker import LIST_MODELS, PATHS, PUBLIC

from .calls import Api, Chunk, numbers
from .talk import Talk

EVERY = [*PATHS, *PUBLIC]


class HalfOpen:
    """A call whose message never arrives. `ended` gets the name of the status that ends it."""

    def __init__(self, channel: grpc.Channel, path: str, ended: Callable[[str], None]) -> None:
        self._box: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call: Any = channel.stream_stream(path, bytes, bytes)
        self._call = call(iter(self._box.get, None), timeout=20)
        self._call.add_done_callback(lambda call: ended(call.code().name))

    def leave(self) -> None:
        self._box.put(None)
        self._call.cancel()


@pytest.fixture(scope="module")
def hasty(counting_model: Path) -> Iterator[ForkedServer]:
    with ForkedServer([counting_model], "memory:", ["--message-timeout-ms", "300"]) as server:
        yield server


@pytest.fixture(scope="module")
def narrow(counting_model: Path) -> Iterator[ForkedServer]:
    """Three calls may wait for their messages, and two of them may be slow."""
    words = ["--max-unread-rpcs", "3", "--max-message-bytes", "1000000", "--max-request-bytes", "2000000"]
    with ForkedServer([counting_model], "memory:", words) as server:
        yield server


def test_every_call_ends_whose_message_does_not_come(hasty: ForkedServer) -> None:
    ended: queue.Queue[tuple[str, str]] = queue.Queue()
    with hasty.channel() as channel:
        for path in EVERY:
            HalfOpen(channel, path, lambda code, path=path: ended.put((path, code)))  # type: ignore[misc]
        codes = dict(ended.get(timeout=10) for _ in EVERY)
    assert codes == dict.fromkeys(EVERY, "DEADLINE_EXCEEDED")


def test_a_stream_may_be_idle_once_its_first_frame_has_come(hasty: ForkedServer) -> None:
    with hasty.channel() as channel, Talk(Api(hasty.stub(channel))) as talk:
        api = Api(hasty.stub(channel))
        at = api.open("idle")
        talk.send(Chunk("idle", numbers(1), at))
        _, result = talk.receive()
        gone: queue.Queue[str] = queue.Queue()
        HalfOpen(channel, PATHS[0], gone.put)  # begun later, and over first
        assert gone.get(timeout=10) == "DEADLINE_EXCEEDED"
        talk.send(Chunk("idle", numbers(1), result.after))
        assert talk.receive()[1].sums == [2]


@pytest.mark.parametrize("count", [3, 6])
def test_only_so_many_are_slow_and_they_take_the_places_of_their_own_connection(
    narrow: ForkedServer, count: int
) -> None:
    """With three calls, one slow call is too many; with six, three arrive while there is no room."""
    ended: queue.Queue[str] = queue.Queue()
    other: queue.Queue[str] = queue.Queue()
    own = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(narrow.target, own) as many, grpc.insecure_channel(narrow.target, own) as one:
        first = HalfOpen(one, PATHS[0], other.put)
        calls = [HalfOpen(many, PATHS[0], ended.put) for _ in range(count)]
        for _ in range(count - 1):
            assert ended.get(timeout=10) == "RESOURCE_EXHAUSTED"
        assert ended.empty()
        assert other.empty()
        with narrow.channel() as channel:
            Api(narrow.stub(channel)).open(f"beside {count}")  # a caller that sends its message is admitted
        for call in [first, *calls]:
            call.leave()


def test_a_health_request_is_small(hasty: ForkedServer) -> None:
    with hasty.channel() as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        with pytest.raises(grpc.RpcError) as caught:
            check(health_pb2.HealthCheckRequest(service="x" * 5000), timeout=10)
        error: grpc.Call = caught.value  # type: ignore[assignment]
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "request: got 5003 bytes, expected at most 4096"
        serving = health_pb2.HealthCheckResponse.SERVING
        assert check(health_pb2.HealthCheckRequest(service=""), timeout=10).status == serving
        assert pb.ListModelsResponse.FromString(channel.unary_unary(LIST_MODELS, bytes, bytes)(b"", timeout=10)).models
