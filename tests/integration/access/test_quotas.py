"""What a quota counts, with a clock that only tests move; and that one tenant's quota costs others nothing."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cellkeeper import Client, QuotaExceeded
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.access.quotas import Allowance, Allowances, Quota
from cellkeeper_service.access.rights import ANYBODY
from cellkeeper_service.errors import Reason, Rejection
from cellkeeper_service.rpc.caller import Caller
from cellkeeper_service.rpc.catalog import Catalog, WireLimits
from google.rpc import error_details_pb2, status_pb2

from testing.forked_server import ForkedServer
from tests.integration.rpc.calls import Api, Chunk, Result, frame_message, from_wire, new_id, numbers, step_message
from tests.unit.core.loop import Server

from .tenants import MODEL, answer, bearer, entry

WINDOW_S = 100.0
NONE = ("REASON_UNSPECIFIED", "REASON_UNSPECIFIED")  # for two items that were not refused


class Time:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def refusal(allowance: Allowance, items: int = 1, steps: int = 0) -> Rejection:
    with pytest.raises(Rejection) as caught:
        allowance.take(items, steps)
    assert caught.value.reason is Reason.QUOTA_EXCEEDED
    return caught.value


def test_inflight_is_what_was_taken_and_not_given_back() -> None:
    allowance = Allowance(Quota(inflight=3), WINDOW_S, Time(), 200)
    allowance.take(2, 0)
    allowance.take(4, 0)  # one was left: a frame larger than the rest is still accepted
    assert refusal(allowance).retry_delay_ms == 200
    allowance.give_back(4)
    allowance.take(1, 0)
    refusal(allowance)


def test_steps_are_earned_by_time_and_a_second_of_them_is_kept() -> None:
    time = Time()
    allowance = Allowance(Quota(steps_per_second=10), WINDOW_S, time, 200)
    allowance.take(1, 25)  # ten were available: fifteen are owed
    assert 1500 <= refusal(allowance, steps=1).retry_delay_ms <= 1502
    time.now += 1.5
    refusal(allowance, steps=1)
    allowance.take(1, 0)  # a request without steps is accepted
    time.now += 0.2
    allowance.take(1, 1)
    time.now += 1000
    allowance.take(1, 11)
    refusal(allowance, steps=1)


def test_a_session_counts_until_it_may_be_forgotten() -> None:
    time = Time()
    allowance = Allowance(Quota(sessions=2), WINDOW_S, time, 200)
    assert allowance.use("m", dict(enumerate(["a", "b"]))) == {}
    time.now += 60
    assert list(allowance.use("m", dict(enumerate(["c", "a", "d"])))) == [0, 2]  # a is counted already and is accepted
    assert allowance.use("m", dict(enumerate(["c"])))[0].retry_delay_ms == 0  # waiting alone does not help
    time.now += 60  # b was idle for too long
    assert list(allowance.use("m", dict(enumerate(["c", "b"])))) == [1]
    allowance.forget("m", "c")
    assert allowance.use("other", dict(enumerate(["a"]))) == {}


def test_a_copied_session_counts_as_its_copy_does() -> None:
    """To copy it keeps it alive."""
    allowance = Allowance(Quota(sessions=3), WINDOW_S, Time(), 200)
    caller = Caller(ANYBODY, Catalog(Server().models, WireLimits()), allowance)
    forks = [("a", "b"), ("a", "c"), ("d", "e")]
    items = [pb.ForkRequest.Item(source=source, target=target) for source, target in forks]
    charge = caller.charge(pb.ForkRequest(items=items))
    assert list(charge.refused) == [2]
    assert list(allowance.use("m", dict(enumerate("abcde")))) == [3, 4]


def test_a_quota_that_changes_keeps_what_was_counted() -> None:
    allowances = Allowances(Quota(inflight=2), WINDOW_S, Time(), 200)
    allowance = allowances.of("a")
    allowance.take(2, 0)
    refusal(allowance)
    allowances.renew({"a": Quota(inflight=3)})
    allowance.take(1, 0)
    refusal(allowance)
    assert allowances.of("a") is allowance


@pytest.fixture(scope="module")
def tokens() -> dict[str, tuple[str, str]]:
    return {name: entry(name, "step,read") for name in ("", "small", "few", "slow", "other")}


@pytest.fixture(scope="module")
def server(
    tokens: dict[str, tuple[str, str]], counting_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ForkedServer]:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    quotas = [
        "quota tenant= sessions=1",
        "quota tenant=small sessions=2 inflight=2",
        "quota tenant=few sessions=2",
        "quota tenant=slow steps_per_second=1",
    ]
    file.write_text("\n".join([line for _, line in tokens.values()] + quotas))
    options = ["--tokens", str(file), "--max-ttl-ms", "600000"]
    with ForkedServer([counting_model], "memory:", options) as process:
        yield process


@pytest.fixture(scope="module")
def channel(server: ForkedServer) -> Iterator[grpc.Channel]:
    with server.channel() as made:
        yield made


class As(Api):
    """Raw calls of one tenant."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        super().__init__(None, MODEL)  # type: ignore[arg-type]
        self._channel, self._metadata = channel, bearer(token)

    def raw(self, rpc: str, request: object) -> tuple[str, bytes]:
        return answer(self._channel, rpc, request, self._metadata)

    def begin(self, session: str) -> tuple[str, bytes]:
        return self.raw("Open", pb.OpenRequest(model=MODEL, session=session, request_id=new_id()))


def test_one_session_too_many_is_refused_and_its_neighbours_go_on(
    server: ForkedServer, channel: grpc.Channel, tokens: dict[str, tuple[str, str]]
) -> None:
    small, other = As(channel, tokens["small"][0]), As(channel, tokens["other"][0])
    names = [os.urandom(8).hex() for _ in range(3)]
    places = []
    for name in names[:2]:
        code, raw = small.begin(name)
        assert code == "OK"
        places.append(from_wire(pb.OpenResponse.FromString(raw).position))
    code, text = small.begin(names[2])
    assert code == "RESOURCE_EXHAUSTED"
    assert b"QUOTA_EXCEEDED" in text
    assert other.begin(names[2])[0] == "OK"
    chunks = [Chunk(names[n], numbers(1), places[n % 2]) for n in range(3)]
    for way in ("StepBatch", "StepStream"):
        reply = pb.StepFrameReply.FromString(small.raw(way, frame_message(MODEL, chunks))[1])
        assert [(error.item, pb.Reason.Name(error.error.reason)) for error in reply.errors] == [(2, "QUOTA_EXCEEDED")]
        assert len(reply.items) == 8
    item = pb.DeleteRequest.Item(session=names[0], generation=places[0].generation)
    assert small.raw("Delete", pb.DeleteRequest(model=MODEL, items=[item]))[0] == "OK"
    assert small.begin(names[2])[0] == "OK"
    with Client(server.target, token=tokens["small"][0]) as client, pytest.raises(QuotaExceeded):
        client.session("one too many")


def test_the_tenant_without_a_name_has_its_quota_from_the_start(
    channel: grpc.Channel, tokens: dict[str, tuple[str, str]]
) -> None:
    nobody = As(channel, tokens[""][0])
    assert nobody.begin("first")[0] == "OK"
    code, text = nobody.begin("second")
    assert (code, b"quota sessions: " in text) == ("RESOURCE_EXHAUSTED", True)


def test_one_session_too_many_is_one_items_error_in_the_calls_that_take_items(
    channel: grpc.Channel, tokens: dict[str, tuple[str, str]]
) -> None:
    few = As(channel, tokens["few"][0])
    names = [os.urandom(8).hex() for _ in range(4)]
    opens = [pb.OpenManyRequest.Item(session=name, request_id=new_id()) for name in names[:3]]
    code, raw = few.raw("OpenMany", pb.OpenManyRequest(model=MODEL, items=opens))
    opened = pb.OpenManyResponse.FromString(raw).results
    assert (code, [pb.Reason.Name(one.error.reason) for one in opened]) == ("OK", [*NONE, "QUOTA_EXCEEDED"])
    known = pb.DeleteRequest.Item(session=names[0], generation=opened[0].opened.position.generation)
    assert few.raw("Delete", pb.DeleteRequest(model=MODEL, items=[known]))[0] == "OK"
    forks = [pb.ForkRequest.Item(source=names[1], target=name, request_id=new_id()) for name in names[2:]]
    code, raw = few.raw("Fork", pb.ForkRequest(model=MODEL, items=forks))
    reasons = [pb.Reason.Name(one.error.reason) for one in pb.SessionResults.FromString(raw).results]
    assert (code, reasons) == ("OK", [NONE[0], "QUOTA_EXCEEDED"])


def test_a_session_may_not_ask_to_be_kept_for_ever(channel: grpc.Channel, tokens: dict[str, tuple[str, str]]) -> None:
    other = As(channel, tokens["other"][0])
    for ttl_ms in (0, 600_001):
        request = pb.OpenRequest(model=MODEL, session="s", request_id=new_id(), ttl_ms=ttl_ms)
        code, text = other.raw("Open", request)
        assert (code, b"ttl_ms: got" in text) == ("INVALID_ARGUMENT", True)
    code, raw = other.begin("s")
    assert (code, pb.OpenResponse.FromString(raw).ttl_ms) == ("OK", 600_000)


@pytest.mark.parametrize("way", ["Step", "StepBatch", "StepStream"])
def test_a_tenant_over_its_steps_is_told_when_to_come_again_and_nobody_else_is(
    channel: grpc.Channel, tokens: dict[str, tuple[str, str]], way: str
) -> None:
    slow, other = As(channel, tokens["slow"][0]), As(channel, tokens["other"][0])
    for api, expected in ((slow, {"QUOTA_EXCEEDED"}), (other, {""})):
        name = os.urandom(8).hex()
        at = from_wire(pb.OpenResponse.FromString(api.begin(name)[1]).position)
        chunk = Chunk(name, numbers(*[1] * 500), at)
        results = [send(api, way, chunk) for _ in range(3)]
        assert {result.reason for result in results[1:]} == expected
        if api is slow:
            assert results[-1].code == "RESOURCE_EXHAUSTED"
            assert results[-1].retry_delay_ms > 100_000  # for 500 steps at one per second


def send(api: As, way: str, chunk: Chunk) -> Result:
    code, raw = api.raw(way, step_message(MODEL, chunk) if way == "Step" else frame_message(MODEL, [chunk]))
    if code == "OK" and way != "Step":
        for error in pb.StepFrameReply.FromString(raw).errors:
            found = error.error
            reason = pb.Reason.Name(found.reason)
            return Result("RESOURCE_EXHAUSTED", reason, retry_delay_ms=found.retry_delay_ms)
    if code == "OK":
        return Result("OK")
    status = status_pb2.Status.FromString(raw.partition(b"\0")[2])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status.details[0].Unpack(info)
    if len(status.details) > 1:
        status.details[1].Unpack(retry)
    return Result(code, info.reason, retry_delay_ms=retry.retry_delay.ToMilliseconds())


def test_open_streams_are_bounded(channel: grpc.Channel, tokens: dict[str, tuple[str, str]]) -> None:
    path = "/cellkeeper.v1.Cellkeeper/StepStream"
    call = channel.stream_stream(path, pb.StepFrame.SerializeToString, pb.StepFrameReply.FromString)
    boxes: list[queue.Queue[pb.StepFrame | None]] = [queue.Queue() for _ in range(3)]
    streams: list[Any] = []
    for index, box in enumerate(boxes):
        box.put(pb.StepFrame(frame_id=index, model="none"))
        streams.append(call(iter(box.get, None), timeout=60, metadata=bearer(tokens["small"][0])))
        if index < 2:
            assert next(streams[-1]).frame_id == index
    with pytest.raises(grpc.RpcError) as caught:
        next(streams[2])
    error: grpc.Call = caught.value  # type: ignore[assignment]
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for box in boxes:
        box.put(None)
    for stream in streams[:2]:
        list(stream)
