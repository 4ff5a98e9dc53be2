"""ModelStreamInfer: order within a sequence, errors of single requests, and how a stream ends."""

from __future__ import annotations

import asyncio
import queue
from pathlib import Path
from typing import Any

import grpc
import pytest
from cellkeeper_proto.kserve import inference_pb2 as pb
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.rpc.answering import Answering
from cellkeeper_service.rpc.authenticator import Authenticator
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.half_sent import HalfSent
from cellkeeper_service.rpc.kserve.inference import Service
from cellkeeper_service.rpc.kserve.servicer import About, KServeServicer
from cellkeeper_service.rpc.kserve.statistics import Statistics
from cellkeeper_service.rpc.listener import Listener
from cellkeeper_service.rpc.open_streams import OpenStreams
from cellkeeper_service.rpc.unread import Unread

from testing.forked_server import ForkedServer
from tests.unit.core.loop import Server

from .calls import END, PATH, START, Api, Refused, Reply, Value, numbers, request
from .conftest import KSERVE

MESSAGE_BYTES = 16 * 1024 * 1024


def infer(value: float, sequence: int | str, identifier: str = "", **parameters: Any) -> pb.ModelInferRequest:
    return request("count", numbers(value), sequence, parameters, identifier=identifier)


def by_id(answers: Any) -> dict[str, list[float] | str]:
    """Returns the sums or the error of each request, by its id."""
    found: dict[str, list[float] | str] = {}
    for answer in answers:
        if isinstance(answer, Reply):
            found[answer.identifier] = answer.sums
        else:
            found[answer.code] = answer.message
    return found


def test_order_is_kept_within_each_of_many_sequences(count: Api, sequence: int) -> None:
    """Nothing is awaited: every START, even in the middle, and every END takes effect where it was sent."""
    names = [f"{sequence}-{n}" for n in range(8)]
    flags: list[dict[str, Value]] = [START, {}, {}, START, {}, END, {**START, **END}]
    sent = [infer(step + 1, name, f"{name}/{step}", **flags[step]) for step in range(len(flags)) for name in names]
    found = by_id(count.stream(iter(sent)))
    assert len(found) == len(sent)
    for name in names:
        assert [found[f"{name}/{step}"] for step in range(len(flags))] == [[1], [3], [6], [4], [9], [15], [7]]


def test_an_error_is_one_requests(count: Api, sequence: int) -> None:
    other = infer(1, sequence, "model")
    other.model_name = "nope"
    found = by_id(
        count.stream(
            iter(
                [
                    infer(1, sequence, "first"),
                    infer(1, sequence, "start", sequence_start=True),
                    infer(1, 0, "none"),
                    other,
                    infer(9, sequence, "gap", step=9),
                    infer(float("nan"), sequence, "nan"),
                    infer(2, sequence, "second", step=1),
                    infer(2, sequence, "again", step=1, acked=0),
                    infer(3, sequence, "end", sequence_end=True),
                    infer(1, sequence, "after"),
                ]
            )
        )
    )
    must_start = (
        f"inference request for sequence {sequence} to model 'count' must specify the START flag on the first "
        "request of the sequence"
    )
    assert found == {
        "first": must_start,
        "start": [1],
        "none": "inference request to model 'count' must specify a non-zero or non-empty correlation ID",
        "model": "Request for unknown model: 'nope' is not found",
        "gap": "step: got 9, but the session is at step 1",
        "nan": "inputs: got nan at time step 0, feature 0, expected finite values",
        "second": [3],
        "again": [3],
        "end": [6],
        "after": must_start,
    }


def test_a_request_id_that_is_too_long_for_a_reply_fails_alone(count: Api, sequence: int) -> None:
    """Its refusal leaves the id out; otherwise no message could hold it, and the stream would end."""
    longest = infer(2, sequence)
    longest.id = "x" * (MESSAGE_BYTES - longest.ByteSize() - 8)
    sent = [infer(1, sequence, "first", **START), longest, infer(4, sequence, "last")]
    found = by_id(count.stream(iter(sent)))
    assert (found["first"], found["last"]) == ([1], [5])
    assert str(found[""]).startswith(f"id: got {len(longest.id)} bytes")


def test_each_reply_says_that_it_is_the_last_of_its_request(count: Api, sequence: int) -> None:
    parameters: dict[str, Value] = {"triton_enable_empty_final_response": True}
    (first, second) = count.stream(
        iter([infer(1, sequence, "", **START), infer(1, sequence, "r", step=1, **parameters)])
    )
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert first.parameters == {"triton_final_response": True}
    assert second.parameters == {"triton_final_response": True, "next_step": 2, "replayed": False}


def test_an_empty_stream_ends(count: Api) -> None:
    assert list(count.stream(iter([]))) == []


def test_bytes_that_are_no_message_end_the_stream_behind_the_answers_before_them(count: Api, sequence: int) -> None:
    call = count.channel.stream_stream(PATH + "ModelStreamInfer", bytes, pb.ModelStreamInferResponse.FromString)
    answers: Any = call(iter([infer(5, sequence, "", **START).SerializeToString(), b"\x0a\x7fcut"]), timeout=30)
    assert next(answers).infer_response.model_name == "count"
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    error: grpc.Call = caught.value  # type: ignore[assignment]
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_server_that_stops_answers_what_it_has_read_and_says_why(counting_model: Path) -> None:
    box: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with ForkedServer([counting_model], "memory:", KSERVE) as server, server.channel() as channel:
        answers = Api(channel).stream(iter(box.get, None))
        box.put(infer(1, 1, "", **START))
        first = next(answers)
        assert isinstance(first, Reply)
        assert first.sums == [1]
        assert server.stop() == 0
        with pytest.raises(Refused) as caught:
            next(answers)
        box.put(None)
    assert caught.value.code == "UNAVAILABLE"
    assert "the server is shutting down" in caught.value.message


async def test_a_stream_that_comes_while_the_server_stops_is_told_so() -> None:
    """An OK without an answer to its request would tell its client nothing, which may then wait for it for ever."""
    world = Server()
    authenticator = Authenticator(Catalog(world.models, WireLimits()))
    streams = OpenStreams(authenticator, Meter(), Unread(1000, 10, 10), HalfSent(1 << 20, 1 << 20))
    servicer = KServeServicer(
        Answering(authenticator, world.loop, Meter(), Unread(1000, 10, 10), streams),
        Service({}, 0),
        Statistics([], lambda model: 0),
        About("", 0, ready),
    )
    listener = Listener(servicer.methods(WireLimits()), (), 10)
    port = listener.listen("127.0.0.1:0", None)
    listener.start()
    await streams.end(0)

    def call() -> list[Any]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            return list(Api(channel).stream(iter([infer(1, 1, "", **START)])))

    with pytest.raises(Refused) as caught:
        await asyncio.to_thread(call)
    await listener.stop(0)
    await listener.close()
    world.loop.store_calls.close()
    assert caught.value.code == "UNAVAILABLE"
    assert "the server is shutting down" in caught.value.message


async def ready() -> str:
    return ""
