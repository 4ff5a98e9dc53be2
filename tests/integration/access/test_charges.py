"""What is charged, and when.

A call is charged once it is admitted, for the work that it really causes. What is refused as an invalid request costs
nothing.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.protobuf.message_factory import GetMessageClass

from testing.forked_server import ForkedServer
from tests.integration.kserve import calls as kserve
from tests.integration.rpc.calls import Chunk, from_wire, new_id, numbers

from .tenants import METHODS, MODEL, REQUESTS, RPCS, answer, bearer, entry
from .test_quotas import As, send

QUOTAS = {
    "few": "sessions=2",
    "slow": "steps_per_second=10",
    **{f"again-{way}": "steps_per_second=500" for way in ("Step", "StepBatch", "StepStream")},
    "held": "inflight=2",
    "two": "sessions=2",
}


class House:
    """A server whose tenants have quotas, each with a token of its name. The token of "late" will be withdrawn."""

    def __init__(self, folder: Path) -> None:
        entries = {name: entry(name, "step,read,admin") for name in [*QUOTAS, "late", "other"]}
        self.tokens = {name: token for name, (token, _) in entries.items()}
        self._lines = {name: line for name, (_, line) in entries.items()}
        self.file = folder / "tokens"
        self.write(set(entries))

    def write(self, names: set[str]) -> None:
        """Writes the file with these tenants' tokens."""
        quotas = [f"quota tenant={name} {quota}" for name, quota in QUOTAS.items()]
        self.file.write_text("\n".join([line for name, line in self._lines.items() if name in names] + quotas))


class Held:
    """A call whose message is held back."""

    def __init__(self, channel: grpc.Channel, rpc: str, token: str) -> None:
        self._box: queue.SimpleQueue[Any] = queue.SimpleQueue()
        path, method = METHODS[rpc]
        serialize = GetMessageClass(method.input_type).SerializeToString
        self._call: Any = channel.stream_stream(path, serialize, bytes)(
            iter(self._box.get, None), timeout=30, metadata=bearer(token)
        )

    def send(self, message: Any) -> str:
        """Sends the message. Returns the name of the status that ends the call."""
        self._box.put(message)
        self._box.put(None)
        with suppress(grpc.RpcError):
            list(self._call)
        return str(self._call.code().name)

    def on_end(self, ended: Callable[[str], None]) -> None:
        """Calls `ended` with the name of the status that ends the call."""
        self._call.add_done_callback(lambda call: ended(call.code().name))

    def leave(self) -> None:
        self._box.put(None)
        self._call.cancel()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def server(house: House, counting_model: Path) -> Iterator[ForkedServer]:
    options = ["--tokens", str(house.file), "--max-ttl-ms", "600000", "--kserve", "on"]
    with ForkedServer([counting_model], "memory:", options) as process:
        yield process


@pytest.fixture(scope="module")
def channel(server: ForkedServer) -> Iterator[grpc.Channel]:
    with server.channel() as made:
        yield made


@pytest.mark.parametrize(
    "rpc", ["Open", "OpenMany", "Reset", "Fork", "GetState", "StepBatch", "StepStream", "ModelInfer"]
)
def test_an_id_that_is_refused_is_not_counted(channel: grpc.Channel, house: House, rpc: str) -> None:
    few = As(channel, house.tokens["few"])
    long = "x" * 300
    places = [from_wire(pb.OpenResponse.FromString(few.begin(name)[1]).position) for name in ("1", "2")]
    drop = [pb.DeleteRequest.Item(session=str(n + 1), generation=at.generation) for n, at in enumerate(places)]
    assert few.raw("Delete", pb.DeleteRequest(model=MODEL, items=drop))[0] == "OK"
    for name in (long, "", f"{long}2"):
        few.raw(rpc, fork_to(name) if rpc == "Fork" else REQUESTS[rpc](name, places[0]))
    assert [few.begin(name)[0] for name in ("1", "2")] == ["OK", "OK"]  # both are still available
    drop = [
        pb.DeleteRequest.Item(session=name, generation=from_wire(few_position(few, name)).generation)
        for name in ("1", "2")
    ]
    assert few.raw("Delete", pb.DeleteRequest(model=MODEL, items=drop))[0] == "OK"


def fork_to(name: str) -> pb.ForkRequest:
    item = pb.ForkRequest.Item(source="1", target=name, request_id=new_id())
    return pb.ForkRequest(model=MODEL, items=[item])


def few_position(api: As, session: str) -> pb.Position:
    raw = api.raw("GetSession", pb.GetSessionRequest(model=MODEL, session=session))[1]
    return pb.SessionInfo.FromString(raw).position


def steps_beyond_all_bounds(rpc: str, session: str) -> Any:
    if rpc == "Step":
        return pb.StepRequest(model=MODEL, session=session, dtype=pb.FLOAT32, shape=[1 << 31, 1])
    if rpc.startswith("Model"):
        message = kserve.request(MODEL, kserve.numbers(1), session, kserve.START)
        message.inputs[0].shape[:] = [1, 1 << 31, 1]
        return message
    if rpc == "CarryOver":
        item = pb.CarryOverRequest.Item(session=session, generation=bytes(16), shape=[1 << 31, 1], request_id=new_id())
        return pb.CarryOverRequest(model=MODEL, items=[item])
    return pb.StepFrame(model=MODEL, sessions=[session], steps=[1 << 31], dtype=pb.FLOAT32, step_shape=[1])


@pytest.mark.parametrize("rpc", ["Step", "StepBatch", "StepStream", "CarryOver", "ModelInfer", "ModelStreamInfer"])
def test_steps_that_no_chunk_may_have_are_not_owed(channel: grpc.Channel, house: House, rpc: str) -> None:
    slow, session = As(channel, house.tokens["slow"]), os.urandom(8).hex()
    at = from_wire(pb.OpenResponse.FromString(slow.begin(session)[1]).position)
    slow.raw(rpc, steps_beyond_all_bounds(rpc, session))
    result = send(slow, "Step", Chunk(session, numbers(1), at))
    assert result.retry_delay_ms < 1000 * 1024 / 10  # at most one chunk's worth is owed, not years


def test_a_sequence_counts_as_a_session(channel: grpc.Channel, house: House) -> None:
    api = kserve.Api(channel, metadata=bearer(house.tokens["two"]))
    for sequence in (7, "7"):
        assert api.infer(kserve.numbers(1), sequence, kserve.START).sums == [1]
    with pytest.raises(kserve.Refused) as caught:
        api.infer(kserve.numbers(1), 8, kserve.START)
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    third = kserve.request(MODEL, kserve.numbers(1), 8, kserve.START)
    second = kserve.request(MODEL, kserve.numbers(1), 7)
    refused, taken = api.stream(iter([third, second]))
    assert isinstance(refused, kserve.Refused)
    assert refused.message == caught.value.message
    assert isinstance(taken, kserve.Reply)
    assert taken.sums == [2]


@pytest.mark.parametrize("way", ["Step", "StepBatch", "StepStream"])
def test_what_a_replay_computes_is_charged(channel: grpc.Channel, house: House, way: str) -> None:
    again, session = As(channel, house.tokens[f"again-{way}"]), os.urandom(8).hex()
    at = from_wire(pb.OpenResponse.FromString(again.begin(session)[1]).position)
    assert send(again, way, Chunk(session, numbers(*[1] * 400), at, acked=0)).code == "OK"
    one = Chunk(session, numbers(1), at, acked=0)
    results = [send(again, way, one) for _ in range(8)]  # each computes 400 steps
    assert "QUOTA_EXCEEDED" in {result.reason for result in results}
    assert {result.reason for result in results} <= {"", "QUOTA_EXCEEDED"}


@pytest.mark.parametrize("rpc", RPCS)
def test_a_call_counts_before_its_message_has_come(channel: grpc.Channel, house: House, rpc: str) -> None:
    held = [Held(channel, rpc, house.tokens["held"]) for _ in range(3)]
    ended: queue.Queue[str] = queue.Queue()
    for call in held:
        call.on_end(ended.put)
    try:
        assert ended.get(timeout=10) == "RESOURCE_EXHAUSTED"  # two are admitted
    finally:
        for call in held:
            call.leave()
    for _ in range(2):
        assert ended.get(timeout=10) == "CANCELLED"
    request = pb.ListModelsRequest()
    while answer(channel, "ListModels", request, bearer(house.tokens["held"]))[0] != "OK":  # until the server notices
        pass


def test_a_token_withdrawn_while_messages_are_held_back_is_not_good_any_more(
    channel: grpc.Channel, house: House, server: ForkedServer
) -> None:
    late, session = As(channel, house.tokens["late"]), os.urandom(8).hex()
    at = from_wire(pb.OpenResponse.FromString(late.begin(session)[1]).position)
    held = {rpc: Held(channel, rpc, house.tokens["late"]) for rpc in RPCS}
    assert late.raw("ListModels", pb.ListModelsRequest())[0] == "OK"  # calls sent before it have been admitted
    house.write({*QUOTAS, "other"})
    server.wait_for("tokens: reloaded")
    statuses = {rpc: call.send(REQUESTS[rpc](session, at)) for rpc, call in held.items()}
    assert statuses == dict.fromkeys(RPCS, "UNAUTHENTICATED")
