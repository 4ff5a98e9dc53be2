"""The calls that read, the standard services beside them, and sessions that expire."""

from __future__ import annotations

import time

import grpc
import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from testing.server_process import ServerProcess

from .calls import Api, Chunk, Refused, from_wire, numbers

SERVICE = "cellkeeper.v1.Cellkeeper"


def test_the_committed_state_is_given_by_name(count: Api, session: str) -> None:
    at = count.send("unary", Chunk(session, numbers(1, 2, 3), count.open(session))).after
    got = count.call("GetState", pb.GetStateRequest(model="count", session=session))
    assert from_wire(got.position) == at
    assert [(tensor.name, tensor.dtype, list(tensor.shape)) for tensor in got.state] == [("h", pb.FLOAT32, [1, 1])]
    assert np.frombuffer(got.state[0].data, "<f4").tolist() == [6.0]


def test_a_state_can_be_taken_to_another_session(lstm: Api, session: str) -> None:
    draw = np.random.default_rng(1)
    inputs = draw.standard_normal((5, 3)).astype(np.float32)
    at = lstm.send("unary", Chunk(session, inputs, lstm.open(session))).after
    state = lstm.call("GetState", pb.GetStateRequest(model="lstm", session=session)).state
    start = lstm.open(f"{session}-copy", initial_state=state)
    one = lstm.send("unary", Chunk(session, inputs, at)).outputs["prediction"]
    two = lstm.send("unary", Chunk(f"{session}-copy", inputs, start)).outputs["prediction"]
    np.testing.assert_array_equal(one, two)


def test_a_sessions_facts(count: Api, session: str) -> None:
    began = time.monotonic()
    at = count.send("unary", Chunk(session, numbers(1), count.open(session, ttl_ms=60_000))).after
    info = count.info(session)
    assert (info.session, from_wire(info.position), info.ttl_ms, info.hot) == (session, at, 60_000, True)
    assert info.idle_ms <= info.age_ms <= (time.monotonic() - began) * 1000 + 1000


def test_what_is_not_there_cannot_be_read(count: Api, session: str) -> None:
    for method, request in (
        ("GetState", pb.GetStateRequest(model="count", session=session)),
        ("GetSession", pb.GetSessionRequest(model="count", session=session)),
    ):
        with pytest.raises(Refused) as refused:
            count.call(method, request)
        assert (refused.value.result.code, refused.value.result.reason) == ("NOT_FOUND", "SESSION_NOT_FOUND")


def test_sessions_are_listed_page_by_page(count: Api, lstm: Api, session: str) -> None:
    names = {f"{session}-{index}" for index in range(7)}
    for name in names:
        count.open(name)
    lstm.open(f"{session}-of-another-model")
    count.open(f"x{session}")
    found: list[str] = []
    token, pages = "", 0
    while True:
        request = pb.ListSessionsRequest(model="count", prefix=session, page_size=3, page_token=token)
        page = count.call("ListSessions", request)
        found += [info.session for info in page.sessions]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert pages > 1
    assert sorted(found) == sorted(names)
    everything = count.call("ListSessions", pb.ListSessionsRequest(model="count", prefix=session))
    assert len(everything.sessions) == 7
    assert all(info.position.step == 0 and not info.checkpoint_step for info in everything.sessions)


def test_a_listing_counts_the_sessions_that_it_finds(served: ServerProcess, count: Api, session: str) -> None:
    def counted() -> float:
        return served.metric("cellkeeper_store_items_total", call="scan")

    for name in (f"{session}-a", f"{session}-b"):
        count.open(name)
    for prefix, found in ((session, 2), (f"{session}-none", 0)):
        before = counted()
        count.call("ListSessions", pb.ListSessionsRequest(model="count", prefix=prefix, page_size=100))
        assert counted() - before == found


def test_the_models(count: Api) -> None:
    models = {model.name: model for model in count.call("ListModels", pb.ListModelsRequest()).models}
    assert set(models) == {"count", "lstm", "hold", "tokens"}
    lstm = models["lstm"]
    assert lstm == count.call("GetModel", pb.GetModelRequest(model="lstm"))
    assert (list(lstm.input.shape), lstm.input.dtype, lstm.vocabulary) == ([3], pb.FLOAT32, 0)
    assert [(output.name, list(output.shape)) for output in lstm.outputs] == [("prediction", [2]), ("hidden", [8])]
    assert [(state.name, list(state.shape)) for state in lstm.states] == [("h", [2, 8]), ("c", [2, 8])]
    assert len(lstm.fingerprint) == 32
    assert (lstm.engine, lstm.device) == ("onnxruntime", "cpu")
    assert "onnxruntime" in lstm.numerics
    assert (lstm.max_chunk_steps, lstm.max_frame_items, lstm.max_log_steps) == (512, 64, 4096)
    assert models["hold"].missing_values
    assert not lstm.missing_values
    assert (models["tokens"].vocabulary, models["tokens"].input.dtype) == (10, pb.INT32)


def test_health_and_reflection_answer(served: ServerProcess) -> None:
    with grpc.insecure_channel(served.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = reflection.ServerReflectionInfo(iter([ask]), timeout=10)
        names = {service.name for service in answer.list_services_response.service}
        assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_an_idle_session_is_forgotten_and_a_busy_one_is_not(count: Api, session: str) -> None:
    """Reading a session's facts does not keep it alive; a step and a peek do."""
    ttls_ms = [600 << doubled for doubled in range(5)]
    assert any(_outlived(count, f"{session}-{ttl_ms}", ttl_ms) for ttl_ms in ttls_ms), (
        "the machine was never quick enough"
    )


def _outlived(count: Api, session: str, ttl_ms: int) -> bool:
    """Returns False if a busy machine left the busy sessions alone for as long as their TTL, which proves nothing."""
    used, until = time.monotonic(), time.monotonic() + 20
    idle = count.send("unary", Chunk(session, numbers(1), count.open(session, ttl_ms=ttl_ms)))
    busy, watched = f"{session}-busy", f"{session}-watched"
    place, seen = count.open(busy, ttl_ms=ttl_ms), count.open(watched, ttl_ms=ttl_ms)
    steps = 0
    while _is_there(count, session):
        assert time.monotonic() < until
        before, used = used, time.monotonic()
        got = count.send("unary", Chunk(busy, numbers(1), place))
        peeked = count.send("unary", Chunk(watched, numbers(1), seen), peek=True)
        if time.monotonic() - before >= ttl_ms / 1000:
            return False
        assert (idle.code, got.code, peeked.code) == ("OK", "OK", "OK")
        place, steps = got.after, steps + 1
    late = count.send("stream", Chunk(session, numbers(1), idle.after))
    got = count.send("unary", Chunk(busy, numbers(1), place))
    if time.monotonic() - used >= ttl_ms / 1000:
        return False
    assert (late.code, late.reason) == ("NOT_FOUND", "SESSION_NOT_FOUND")
    assert got.sums == [steps + 1]
    again = count.opened(session)
    assert (again.created, again.ttl_ms) == (True, 0)
    assert from_wire(again.position).generation != idle.after.generation
    return True


def _is_there(api: Api, session: str) -> bool:
    try:
        api.info(session)
    except Refused as refused:
        if refused.result.reason != "SESSION_NOT_FOUND":
            raise
        return False
    return True
