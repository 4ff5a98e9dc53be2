"""For every RPC: access is checked, and another tenant's session looks as if it never existed.

Each right is required, and a caller without a valid token is refused. The RPCs come from the contract, so a new one
without a right or a request fails here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.access.rights import NEEDS, Right
from cellkeeper_service.domain.position import Position
from cellkeeper_service.rpc.http.routes import ROUTES, SOCKETS
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from testing.forked_server import ForkedServer
from tests.integration.kserve import calls as kserve
from tests.integration.rpc.calls import Chunk, frame_message, from_wire, new_id, numbers, step_message, to_wire

from .tenants import MODEL, REQUESTS, RPCS, answer, bearer, entry


class House:
    """A server with tenants a and b. tokens: by name; "a" and "b" have all rights, and "b-step" has one."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "tokens"
        self.tokens: dict[str, str] = {}
        lines = []
        for name, tenant, rights, expires in [
            ("a", "a", "step,read,admin", ""),
            ("b", "b", "step,read,admin", ""),
            *((f"b-{right.value}", "b", right.value, "") for right in Right),
            ("expired", "b", "step,read,admin", "2020-01-01T00:00:00Z"),
        ]:
            self.tokens[name], line = entry(tenant, rights, expires)
            lines.append(line)
        self.lines = lines
        self.file.write_text("\n".join(lines))

    def as_(self, name: str) -> tuple[tuple[str, str], ...]:
        return bearer(self.tokens[name])


@pytest.fixture(scope="module", params=[pytest.param("memory:", marks=pytest.mark.fire), "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path_factory.mktemp('store') / 'sessions.db'}"
    return str(request.param)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def server(house: House, store: str, counting_model: Path) -> Iterator[ForkedServer]:
    with ForkedServer([counting_model], store, ["--tokens", str(house.file), "--kserve", "on"]) as process:
        yield process


@pytest.fixture(scope="module")
def channel(server: ForkedServer) -> Iterator[grpc.Channel]:
    with server.channel() as made:
        yield made


@pytest.fixture
def theirs(channel: grpc.Channel, house: House) -> tuple[str, Position]:
    """A session of tenant a after one step, and its position."""
    session = os.urandom(8).hex()
    step = step_message(MODEL, Chunk(session, numbers(5)))
    code, reply = answer(channel, "Step", step, house.as_("a"))
    assert code == "OK"
    return session, from_wire(pb.StepResponse.FromString(reply).position)


def test_every_rpc_has_a_right_and_no_other_has_one() -> None:
    over_http = {route.rpc for route in (*ROUTES, *SOCKETS)}
    assert set(NEEDS) == set(RPCS) | over_http
    assert all(NEEDS.values())
    assert set(REQUESTS) == set(RPCS)


@pytest.mark.parametrize("rpc", RPCS)
def test_anothers_session_is_as_one_that_never_existed(
    channel: grpc.Channel, house: House, theirs: tuple[str, Position], rpc: str
) -> None:
    session, at = theirs
    never = os.urandom(8).hex()
    mine = house.as_("b")
    asked = answer(channel, rpc, REQUESTS[rpc](session, at), mine)
    expected = answer(channel, rpc, REQUESTS[rpc](never, at), mine)
    assert (asked[0], asked[1].replace(session.encode(), never.encode())) == expected
    code, info = answer(channel, "GetSession", REQUESTS["GetSession"](session, at), house.as_("a"))
    assert code == "OK"  # its position is unchanged
    assert from_wire(pb.SessionInfo.FromString(info).position) == at


def test_the_same_id_in_two_tenants_is_two_sessions(
    channel: grpc.Channel, house: House, theirs: tuple[str, Position]
) -> None:
    session, at = theirs
    code, raw = answer(
        channel, "Open", pb.OpenRequest(model=MODEL, session=session, request_id=new_id()), house.as_("b")
    )
    opened = pb.OpenResponse.FromString(raw)
    assert (code, opened.created, opened.position.step) == ("OK", True, 0)
    fork = pb.ForkRequest.Item(source=session, target=f"{session}-2", request_id=new_id())
    code, raw = answer(channel, "Fork", pb.ForkRequest(model=MODEL, items=[fork]), house.as_("b"))
    assert pb.SessionResults.FromString(raw).results[0].position.step == 0  # b's own, not a's
    step = step_message(MODEL, Chunk(session, numbers(1), at))
    code, raw = answer(channel, "Step", step, house.as_("a"))
    assert code == "OK"
    names = answer(channel, "ListSessions", pb.ListSessionsRequest(model=MODEL, prefix=session), house.as_("a"))[1]
    assert [info.session for info in pb.ListSessionsResponse.FromString(names).sessions] == [session]


@pytest.mark.parametrize("right", Right, ids=lambda right: right.value)
@pytest.mark.parametrize("rpc", RPCS)
def test_each_right_is_needed(
    channel: grpc.Channel, house: House, theirs: tuple[str, Position], rpc: str, right: Right
) -> None:
    session, at = theirs
    code, text = answer(channel, rpc, REQUESTS[rpc](session, at), house.as_(f"b-{right.value}"))
    if right in NEEDS[rpc]:
        assert code not in ("PERMISSION_DENIED", "UNAUTHENTICATED")
    else:
        assert code == "PERMISSION_DENIED"
        assert b"PERMISSION_DENIED" in text  # the reason, in the details
        # and it is refused before any look-up: the answer does not depend on what exists
        assert answer(channel, rpc, REQUESTS[rpc]("never", at), house.as_(f"b-{right.value}")) == (code, text)


@pytest.mark.parametrize("way", ["Step", "StepBatch", "StepStream"])
def test_a_step_shows_the_state_only_to_those_who_may_read_it(channel: grpc.Channel, house: House, way: str) -> None:
    chunk = Chunk(os.urandom(8).hex(), numbers(1))
    request = pb.OpenRequest(model=MODEL, session=chunk.session, request_id=new_id())
    opened = pb.OpenResponse.FromString(answer(channel, "Open", request, house.as_("b"))[1])
    chunk = Chunk(chunk.session, numbers(1), from_wire(opened.position))
    unary = way == "Step"
    asked: Any = (
        step_message(MODEL, chunk, outputs=["state"]) if unary else frame_message(MODEL, [chunk], outputs=["state"])
    )
    code, text = answer(channel, way, asked, house.as_("b-step"))
    if way == "StepStream":
        error = pb.StepFrameReply.FromString(text).frame_error
        assert pb.Reason.Name(error.reason) == "PERMISSION_DENIED"
    else:
        assert code == "PERMISSION_DENIED"
    assert answer(channel, way, asked, house.as_("b"))[0] == "OK"


def test_a_sequence_shows_its_state_only_to_those_who_may_read_it(channel: grpc.Channel, house: House) -> None:
    sequence, more = os.urandom(8).hex(), {"outputs": ["state.h"]}
    with pytest.raises(kserve.Refused) as caught:
        kserve.Api(channel, metadata=house.as_("b-step")).infer(kserve.numbers(1), sequence, kserve.START, **more)
    assert caught.value.code == "PERMISSION_DENIED"
    shown = kserve.Api(channel, metadata=house.as_("b")).infer(kserve.numbers(1), sequence, kserve.START, **more)
    assert list(shown.outputs) == ["state.h"]


@pytest.mark.parametrize("rpc", RPCS)
def test_without_a_good_token_nobody_is_let_in(
    channel: grpc.Channel, house: House, theirs: tuple[str, Position], rpc: str
) -> None:
    request = REQUESTS[rpc](*theirs)
    good = house.tokens["a"]
    bad = {
        "none": (),
        "unknown": bearer(good[:-1] + ("A" if good[-1] != "A" else "B")),
        "expired": house.as_("expired"),
        "no scheme": (("authorization", good),),
        "another scheme": (("authorization", f"Basic {good}"),),
        "two": (*bearer(good), *bearer(good)),
        "empty": bearer(""),
        "another key": (("token", good),),
    }
    answers = {name: answer(channel, rpc, request, metadata) for name, metadata in bad.items()}
    assert {code for code, _ in answers.values()} == {"UNAUTHENTICATED"}
    assert len(set(answers.values())) == 1  # the caller does not learn which of them it was
    assert good.encode() not in answers["unknown"][1]


def test_an_unread_message_cannot_cost_anything(channel: grpc.Channel) -> None:
    """A call that is not admitted gets no further, whatever it sends."""
    call = channel.unary_unary("/cellkeeper.v1.Cellkeeper/Open", bytes, bytes)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff" * (8 << 20), timeout=30)
    error: grpc.Call = caught.value  # type: ignore[assignment]
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def test_health_answers_everybody_and_reflection_nobody(channel: grpc.Channel) -> None:
    check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert check.status == health_pb2.HealthCheckResponse.SERVING
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as caught:
        list(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), timeout=30))
    error: grpc.Call = caught.value  # type: ignore[assignment]
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_metrics_name_no_tenant_no_session_and_no_token(
    server: ForkedServer, house: House, theirs: tuple[str, Position]
) -> None:
    text = server.metrics() + server.output()
    assert "cellkeeper_rejections_total" in text
    for secret in (theirs[0], *house.tokens.values(), "tenant"):
        assert secret not in text


def test_a_withdrawn_tokens_stream_ends(channel: grpc.Channel, house: House, server: ForkedServer) -> None:
    token, line = entry("c", "step")
    house.file.write_text("\n".join([*house.lines, line]))
    opening = pb.OpenRequest(model=MODEL, session="s", request_id=new_id())
    while answer(channel, "Open", opening, bearer(token))[0] == "UNAUTHENTICATED":
        server.wait_for("tokens: reloaded")
    at = pb.OpenResponse.FromString(answer(channel, "Open", opening, bearer(token))[1]).position
    frame = frame_message(MODEL, [Chunk("s", numbers(2), from_wire(at))])

    def frames() -> Iterator[pb.StepFrame]:
        yield frame
        ended.wait(30)

    ended = threading.Event()
    path = "/cellkeeper.v1.Cellkeeper/StepStream"
    call = channel.stream_stream(path, pb.StepFrame.SerializeToString, pb.StepFrameReply.FromString)
    replies: Any = call(frames(), timeout=30, metadata=bearer(token))
    assert next(replies).last
    house.file.write_text("broken\n")  # is not accepted, and changes nothing
    server.wait_for(f"tokens: cannot read {house.file}, so the previous tokens stay in force: ")
    assert answer(channel, "Open", opening, bearer(token))[0] == "OK"
    house.file.write_text("\n".join(house.lines))
    try:
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
    finally:
        ended.set()
    error: grpc.Call = caught.value  # type: ignore[assignment]
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert answer(channel, "Open", opening, bearer(token))[0] == "UNAUTHENTICATED"
    assert to_wire(from_wire(at)) == at
