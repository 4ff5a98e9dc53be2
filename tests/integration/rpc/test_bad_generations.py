"""Bad fields of Open, Reset, SetState, Fork, Delete and of the calls that read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position

from .calls import Api, Refused, new_id
from .checks import SAYS_WHAT_CAME_AND_WHAT_WAS_EXPECTED, check


def test_fields_of_open(count: Api, session: str) -> None:
    tensor = pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 1], data=bytes(4))
    for fields, field in (
        ({"request_id": b""}, "request_id"),
        ({"request_id": bytes(16)}, "request_id"),
        ({"request_id": bytes(17)}, "request_id"),
        ({"session": ""}, "session"),
        ({"model": "no such"}, "model"),
        ({"ttl_ms": 2**63}, "ttl_ms"),
        ({"expect": pb.Position(generation=b"", step=1, head=bytes(8))}, "expect.generation"),
        ({"expect": pb.Position(generation=new_id(), step=1, head=b"")}, "expect.head"),
        ({"initial_state": [tensor, tensor]}, "initial_state"),
        ({"initial_state": [pb.Tensor(name="c", dtype=pb.FLOAT32, shape=[1, 1], data=bytes(4))]}, "initial_state"),
        ({"initial_state": [pb.Tensor(name="h", dtype=pb.FLOAT64, shape=[1, 1], data=bytes(8))]}, "initial_state[h]"),
        ({"initial_state": [pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1], data=bytes(4))]}, "initial_state[h]"),
        ({"initial_state": [pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 1], data=bytes(3))]}, "initial_state[h]"),
    ):
        base = {"model": "count", "session": session, "request_id": new_id()}
        with pytest.raises(Refused) as refused:
            count.call("Open", pb.OpenRequest(**{**base, **fields}))  # type: ignore[arg-type]
        check(refused.value.result, field)
    infinite = pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 1], data=np.float32(np.inf).tobytes())
    with pytest.raises(Refused) as refused:
        count.open(session, initial_state=[infinite])
    check(refused.value.result, "initial_state[h]", reason="NON_FINITE_INPUT")
    assert count.opened(session).created  # none of these created it


def test_items_of_the_other_calls(count: Api, session: str, at: Position) -> None:
    state = [pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 1], data=bytes(4))]
    base: dict[str, Any] = {"session": session, "generation": at.generation, "request_id": new_id()}
    window = {"policy": 2, "dtype": pb.FLOAT32, "shape": [1, 1], "inputs": bytes(4)}
    twig = {"source": session, "target": f"{session}-2", "request_id": new_id()}
    cut = pb.Position(generation=at.generation, step=1, head=b"")
    other = pb.Position(generation=new_id(), step=at.step, head=at.head)
    whole = pb.Position(generation=at.generation, step=at.step, head=at.head)
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("Reset", {**base, "generation": bytes(15)}, "items[0].generation"),
        ("Reset", {**base, "request_id": bytes(16)}, "items[0].request_id"),
        ("SetState", {**base, "state": []}, "items[0].state"),
        ("SetState", {**base, "state": state, "step": 2**63}, "items[0].step"),
        ("SetState", {**base, "state": state, "generation": b""}, "items[0].generation"),
        ("CarryOver", {**base, "policy": 0}, "items[0].policy"),
        ("CarryOver", {**base, "policy": 9}, "items[0].policy"),
        ("CarryOver", {**base, "policy": 1, "generation": b""}, "items[0].generation"),
        ("CarryOver", {**base, "policy": 3, "request_id": bytes(16)}, "items[0].request_id"),
        ("CarryOver", {**base, "policy": 1, "inputs": bytes(4)}, "items[0].inputs"),
        ("CarryOver", {**base, "policy": 1, "position": pb.Position()}, "items[0].position.generation"),
        ("CarryOver", {**base, "policy": 1, "position": other}, "items[0].position.generation"),
        ("CarryOver", {**base, "policy": 3, "position": whole}, "items[0].position"),
        ("CarryOver", {**base, **window, "shape": []}, "items[0].shape"),
        ("CarryOver", {**base, **window, "shape": [0, 1]}, "items[0].shape"),
        ("CarryOver", {**base, **window, "shape": [513, 1]}, "items[0].shape"),
        ("CarryOver", {**base, **window, "shape": [1, 2]}, "items[0].shape"),
        ("CarryOver", {**base, **window, "dtype": pb.INT32}, "items[0].dtype"),
        ("CarryOver", {**base, **window, "inputs": bytes(8)}, "items[0].inputs"),
        ("Fork", {**twig, "target": ""}, "items[0].target"),
        ("Fork", {**twig, "target": session}, "items[0].target"),
        ("Fork", {**twig, "source": "s" * 257}, "items[0].source"),
        ("Fork", {**twig, "position": cut}, "items[0].position.head"),
        ("Fork", {**twig, "request_id": b"1"}, "items[0].request_id"),
        ("Delete", {"session": session, "generation": b""}, "items[0].generation"),
        ("Delete", {"session": "", "generation": at.generation}, "items[0].session"),
    ]
    for method, fields, field in cases:
        kind: Any = getattr(pb, f"{method}Request")
        (result,) = count.call(method, kind(model="count", items=[kind.Item(**fields)])).results
        error = result.error
        assert (error.code, pb.Reason.Name(error.reason), error.field) == (3, "INVALID_FIELD", field), (method, error)
        assert SAYS_WHAT_CAME_AND_WHAT_WAS_EXPECTED.match(error.message), error.message
    for items in (0, 65):
        many = [pb.DeleteRequest.Item(session=f"s{i}", generation=at.generation) for i in range(items)]
        with pytest.raises(Refused) as refused:
            count.call("Delete", pb.DeleteRequest(model="count", items=many))
        check(refused.value.result, "items", f"{items} items", "1 to 64")


def test_fields_of_what_reads(count: Api, session: str) -> None:
    for method, request, field in (
        ("GetState", pb.GetStateRequest(model="count", session=""), "session"),
        ("GetSession", pb.GetSessionRequest(model="no such", session=session), "model"),
        ("ListSessions", pb.ListSessionsRequest(model="count", page_size=1001), "page_size"),
        ("ListSessions", pb.ListSessionsRequest(model="count", page_token="no token"), "page_token"),
        ("ListSessions", pb.ListSessionsRequest(model="count", prefix="p" * 257), "prefix"),
        ("GetModel", pb.GetModelRequest(model="no such"), "model"),
        ("GetModel", pb.GetModelRequest(model="count", fingerprint=b"other"), "fingerprint"),
    ):
        with pytest.raises(Refused) as refused:
            count.call(method, request)
        check(refused.value.result, field)
