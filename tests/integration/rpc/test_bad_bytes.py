"""Bytes that are not a valid message, and long texts in refusals: the status is typed all the same, and arrives."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.errors import Rejection
from cellkeeper_service.rpc.authenticator import Authenticator
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from cellkeeper_service.rpc.codec import decoder
from cellkeeper_service.rpc.half_sent import HalfSent
from cellkeeper_service.rpc.method import Method
from cellkeeper_service.rpc.open_streams import OpenStreams
from cellkeeper_service.rpc.stream import Stream
from cellkeeper_service.rpc.unread import Unread

from testing.server_process import ServerProcess
from tests.unit.core.loop import Server

from .calls import (
    Api,
    Chunk,
    Refused,
    Result,
    frame_message,
    from_frames,
    from_status,
    from_step,
    numbers,
    step_message,
)
from .listening_servers import PATH, OnListener, ask

SERVICE = "/cellkeeper.v1.Cellkeeper/"
UNARY = [method.name for method in pb.DESCRIPTOR.services_by_name["Cellkeeper"].methods if not method.client_streaming]
REFLECTION = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CUT = b"\x0a\x7fcut"
NOT_UTF8 = b"\x0a\x02\xff\xfe"


PUBLIC = ("grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch", REFLECTION)
"""Methods of the services that answer everybody."""


@pytest.mark.parametrize("method", PUBLIC)
@pytest.mark.parametrize("data", [CUT, NOT_UTF8], ids=["cut", "text"])
def test_bytes_that_are_no_message_of_a_public_service_are_no_fault_of_the_server(
    served: ServerProcess, method: str, data: bytes
) -> None:
    """Anyone may send them, so they must not fill the log with tracebacks."""
    with served.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream(f"/{method}", bytes, bytes)(iter([data]), timeout=30))
    result = from_status(caught.value)
    assert (result.code, result.reason, result.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "request")
    assert "Traceback" not in served.output()


@pytest.mark.parametrize("method", UNARY)
def test_bytes_that_are_no_message_are_an_invalid_argument(served: ServerProcess, method: str) -> None:
    with served.channel() as channel:
        call = channel.unary_unary(SERVICE + method, bytes, bytes)  # bytes in, bytes out
        with pytest.raises(grpc.RpcError) as caught:
            call(CUT, timeout=30)
    result = from_status(caught.value)
    assert (result.code, result.reason, result.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "request")


async def test_bytes_that_are_no_message_of_a_stream_are_not_kept() -> None:
    """Megabytes of each such stream would otherwise stay until the next garbage collection."""
    core = Server().loop
    core.start()
    meter = Meter()
    authenticator = Authenticator(Catalog({}, WireLimits()))
    streams = OpenStreams(authenticator, meter, Unread(30_000, 100, 100), HalfSent(1 << 20, 1 << 20))

    def serve(call: Any) -> AsyncGenerator[list[Any], None]:
        return streams.serve("StepStream", call, lambda caller, latest: Stream(caller, core, meter, latest))

    method = Method(serve, decoder(pb.StepFrame, 100), pb.StepFrameReply.SerializeToString, streams=True)
    served = OnListener({PATH: method}, 100)
    gc.collect()
    gc.disable()
    try:
        async with served.call() as call:
            for _ in range(5):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await ask(call, CUT)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                del caught
        await asyncio.wait_for(served.stop(0), 30)
        assert [one for one in gc.get_objects() if isinstance(one, Rejection)] == []
    finally:
        gc.enable()
        await asyncio.wait_for(served.listener.close(), 30)
        await core.drain()
        core.store_calls.close()


def test_text_that_is_not_utf8_is_an_invalid_argument(served: ServerProcess) -> None:
    with served.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(SERVICE + "GetSession", bytes, bytes)(NOT_UTF8, timeout=30)
    assert from_status(caught.value).reason == "INVALID_FIELD"


def test_a_stream_answers_the_frames_before_the_bytes_that_are_none(
    served: ServerProcess, count: Api, session: str
) -> None:
    frame = frame_message("count", [Chunk(session, numbers(5), count.open(session))])
    answers: list[Result] = []
    with served.channel() as channel:
        call = channel.stream_stream(SERVICE + "StepStream", bytes, pb.StepFrameReply.FromString)
        replies = call(iter([frame.SerializeToString(), CUT]), timeout=30)
        with pytest.raises(grpc.RpcError) as caught:
            answers.extend(from_frames(1, [reply])[0] for reply in replies)
    assert from_status(caught.value).reason == "INVALID_FIELD"
    assert [answer.sums for answer in answers] == [[5]]


def test_a_second_message_of_a_unary_call_is_not_read(served: ServerProcess, count: Api, session: str) -> None:
    """Not even if it cannot be decoded. No generated stub can send one."""
    first = step_message("count", Chunk(session, numbers(5), count.open(session))).SerializeToString()
    another = step_message("count", Chunk(session, numbers(7))).SerializeToString()
    with served.channel() as channel:
        call = channel.stream_unary(SERVICE + "Step", bytes, pb.StepResponse.FromString)
        for second in (another, CUT):
            assert from_step(call(iter([first, second]), timeout=30)).sums == [5]
    assert count.info(session).position.step == 1


@pytest.mark.parametrize("letter", ["y", "\U0001f600", "\0"])
def test_a_long_text_does_not_cost_its_sender_the_status(count: Api, letter: str) -> None:
    with pytest.raises(Refused) as caught:
        count.call("GetSession", pb.GetSessionRequest(model=letter * 100_000, session="a"))
    result = caught.value.result
    assert (result.code, result.reason, result.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "model")
    assert "expected" in result.message
    assert len(result.message.encode()) <= 500


def test_too_many_items_are_refused_before_any_is_looked_at(count: Api) -> None:
    item = pb.ResetRequest.Item(session="a", generation=bytes(16), request_id=os.urandom(16))
    with pytest.raises(Refused) as caught:
        count.call("Reset", pb.ResetRequest(model="count", items=[item] * 2000))
    assert caught.value.result.field == "items"
