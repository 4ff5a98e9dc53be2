"""OpenMany: each item does what an Open does, and succeeds or fails on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position, first_position
from cellkeeper_service.domain.record import Record, SessionKey
from cellkeeper_service.domain.store import Load
from cellkeeper_service.store.open import open_store

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .calls import TIMEOUT_S, Api, Chunk, Result, from_error, from_wire, new_id, numbers, to_wire
from .test_generations import refusal, total

LIMIT = 64  # max_frame_items of the server of `count`


def item(session: str, **fields: Any) -> pb.OpenManyRequest.Item:
    return pb.OpenManyRequest.Item(session=session, **{"request_id": new_id(), **fields})


def opened(api: Api, items: Sequence[pb.OpenManyRequest.Item]) -> list[pb.OpenResponse | Result]:
    """Returns for each item how it was opened, or its error."""
    reply: pb.OpenManyResponse = api.call("OpenMany", pb.OpenManyRequest(model=api.model, items=items))
    return [from_error(one.error) if one.HasField("error") else one.opened for one in reply.results]


def all_opened(api: Api, items: Sequence[pb.OpenManyRequest.Item]) -> list[pb.OpenResponse]:
    found = opened(api, items)
    assert [one for one in found if isinstance(one, Result)] == []
    return [one for one in found if isinstance(one, pb.OpenResponse)]


def named(session: str, count: int) -> list[str]:
    return [f"{session}-{number}" for number in range(count)]


def test_new_sessions_are_created_in_the_order_of_the_items(count: Api, session: str) -> None:
    names = named(session, LIMIT)
    found = all_opened(count, [item(name) for name in names])
    assert len(found) == LIMIT
    fingerprint = count.info(names[0]).fingerprint
    for name, one in zip(names, found, strict=True):
        position = from_wire(one.position)
        assert position == first_position(position.generation) == count.position(name)
        assert (one.created, one.ttl_ms, one.fingerprint) == (True, 0, fingerprint)
    assert len({one.position.generation for one in found}) == LIMIT
    last = count.send("unary", Chunk(names[-1], numbers(4), from_wire(found[-1].position)))
    assert last.sums == [4]


def test_sessions_that_exist_are_continued_beside_new_ones(count: Api, session: str) -> None:
    names = named(session, 6)
    at = {name: count.send("unary", Chunk(name, numbers(1, 2))).after for name in names[::2]}
    found = all_opened(count, [item(name) for name in names])
    assert [one.created for one in found] == [False, True] * 3
    assert [from_wire(one.position) for one in found[::2]] == [at[name] for name in names[::2]]
    assert count.send("unary", Chunk(names[0], numbers(3), at[names[0]])).sums == [6]
    again = all_opened(count, [item(name) for name in names])
    assert [one.created for one in again] == [False] * 6


def test_each_item_has_its_own_expect_ttl_and_state(count: Api, session: str) -> None:
    a, b, c, d, e = named(session, 5)
    at = count.send("unary", Chunk(a, numbers(1))).after
    lost = Position(at.generation, at.step + 1, at.head)
    found = opened(
        count,
        [
            item(a, expect=to_wire(at)),
            item(b, expect=to_wire(first_position(new_id()))),
            item(c, ttl_ms=90_000),
            item(d, ttl_ms=0, initial_state=[total(10)]),
            item(e),
        ],
    )
    missing = found[1]
    assert isinstance(missing, Result)
    assert (missing.code, missing.reason) == ("NOT_FOUND", "SESSION_NOT_FOUND")
    rest = [one for one in found if isinstance(one, pb.OpenResponse)]
    assert [one.created for one in rest] == [False, True, True, True]
    assert [one.ttl_ms for one in rest] == [0, 90_000, 0, 0]
    assert from_wire(rest[0].position) == at
    assert count.send("unary", Chunk(d, numbers(1), from_wire(rest[2].position))).sums == [11]
    (ahead, kept) = opened(count, [item(a, expect=to_wire(lost)), item(c, ttl_ms=80_000)])
    assert isinstance(ahead, Result)
    assert (ahead.reason, ahead.position) == ("STEP_GAP", at)
    assert isinstance(kept, pb.OpenResponse)
    assert (kept.created, kept.ttl_ms, count.info(c).ttl_ms) == (False, 80_000, 80_000)


def test_a_bad_item_is_refused_alone_and_its_field_is_named(count: Api, session: str) -> None:
    names = named(session, 8)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"request_id": b"short"}, "items[1].request_id"),
        ({"ttl_ms": 2**63}, "items[2].ttl_ms"),
        ({"expect": pb.Position(generation=b"", head=bytes(8))}, "items[3].expect.generation"),
        ({"expect": pb.Position(generation=new_id(), head=b"")}, "items[4].expect.head"),
        ({"initial_state": [total(1), total(1)]}, "items[5].initial_state"),
        ({"session": ""}, "items[6].session"),
    ]
    items = [item(names[0])]
    items += [item(**{"session": name, **fields}) for name, (fields, _) in zip(names[1:7], bad, strict=True)]
    found = opened(count, [*items, item(names[7])])
    refused = [one for one in found[1:7] if isinstance(one, Result)]
    assert [(one.code, one.reason) for one in refused] == [("INVALID_ARGUMENT", "INVALID_FIELD")] * 6
    assert [one.field for one in refused] == [field for _, field in bad]
    assert all(one.message.startswith(f"{one.field}: got ") and "expected" in one.message for one in refused)
    for name, one in ((names[0], found[0]), (names[7], found[7])):
        assert isinstance(one, pb.OpenResponse)
        assert count.position(name) == from_wire(one.position)
    assert [one.created for one in all_opened(count, [item(name) for name in names[1:6]])] == [True] * 5


def test_an_id_twice_in_one_call_is_opened_once(count: Api, session: str) -> None:
    first, second, other = opened(count, [item(session), item(session), item(f"{session}-other")])
    assert isinstance(first, pb.OpenResponse)
    assert isinstance(second, Result)
    assert (second.code, second.reason, second.field) == ("INVALID_ARGUMENT", "DUPLICATE_SESSION", "items[1]")
    assert isinstance(other, pb.OpenResponse)
    assert count.position(session) == from_wire(first.position)


def test_a_repeated_call_finds_what_it_has_made(count: Api, session: str) -> None:
    items = [item(name) for name in named(session, 5)]
    first = all_opened(count, items)
    assert all_opened(count, items) == first
    later = count.send("unary", Chunk(f"{session}-0", numbers(1), from_wire(first[0].position))).after
    again = all_opened(count, items)
    assert [one.created for one in again] == [True] * 5  # as Open says of a retry
    assert from_wire(again[0].position) == later
    assert again[1:] == first[1:]


def test_open_and_open_many_find_the_work_of_each_other(count: Api, session: str) -> None:
    """A client may retry with the other call, since an older replica knows only Open."""
    ids = [new_id(), new_id()]
    many = all_opened(count, [item(session, request_id=ids[0])])
    assert count.opened(session, request_id=ids[0]) == many[0]
    one = count.opened(f"{session}-2", request_id=ids[1], initial_state=[total(1)])
    retry = item(f"{session}-2", request_id=ids[1], initial_state=[total(1)])
    assert all_opened(count, [retry]) == [one]
    (other,) = opened(count, [item(f"{session}-2", request_id=ids[1])])
    assert isinstance(other, Result)
    assert (other.reason, other.field) == ("INVALID_FIELD", "request_id")


@pytest.mark.parametrize("number", [0, LIMIT + 1])
def test_too_many_items_and_none_are_refused_with_the_limit(count: Api, session: str, number: int) -> None:
    items = [item(name) for name in named(session, number)]
    got = refusal(count, "OpenMany", pb.OpenManyRequest(model=count.model, items=items))
    assert (got.code, got.reason, got.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "items")
    assert got.message == f"items: got {number} items, expected 1 to {LIMIT}"
    model = count.call("GetModel", pb.GetModelRequest(model=count.model))
    assert model.max_frame_items == LIMIT
    if items:
        assert count.opened(items[0].session).created  # nothing of it was done


def test_a_model_that_is_not_served_is_refused_once(count: Api, session: str) -> None:
    got = refusal(count, "OpenMany", pb.OpenManyRequest(model="no such", items=[item(session)]))
    assert (got.code, got.field) == ("INVALID_ARGUMENT", "model")


def test_a_call_that_a_server_does_not_know_is_unimplemented(served: ForkedServer, session: str) -> None:
    """What a newer client gets from an older server.

    No refusal of a call's fields has this code, so it cannot be mistaken for one.
    """
    request = pb.OpenManyRequest(model="count", items=[item(session)])
    with served.channel() as channel:
        path = "/cellkeeper.v1.Cellkeeper/OpenNotYetKnown"
        call: Any = channel.unary_unary(path, pb.OpenManyRequest.SerializeToString, bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'sessions.db'}"
        return
    with RedisServer({"appendfsync": "no"}) as redis:
        yield redis.url


def stored(url: str, names: Sequence[str]) -> dict[str, bytes]:
    """Returns the generations in the store, by session."""
    opened_store = open_store(url)
    try:
        records = opened_store.load_many([Load(SessionKey("", "count", name), False) for name in names])
    finally:
        opened_store.close()
    return {
        name: record.position.generation
        for name, record in zip(names, records, strict=True)
        if isinstance(record, Record)
    }


def test_a_call_is_repeated_after_the_server_was_killed_in_it(store: str, counting_model: Path, session: str) -> None:
    names = named(session, 1000)
    items = [item(name) for name in names]
    with ForkedServer([counting_model], store) as server:
        with server.channel() as channel:
            api = Api(server.stub(channel))
            before = all_opened(api, items[:100])
            request = pb.OpenManyRequest(model="count", items=items)
            call: Any = server.stub(channel).OpenMany.future(request, timeout=TIMEOUT_S)
            while not call.done() and not stored(store, names[100:101]):
                pass
            server.kill()
        known = stored(store, names)
        server.restart()
        with server.channel() as channel:
            api = Api(server.stub(channel))
            found = all_opened(api, items)
            assert all(one.created for one in found)  # nobody else has opened one of them
            assert found[:100] == before
            made = {name: one.position.generation for name, one in zip(names, found, strict=True)}
            assert known.items() <= made.items()
            assert made == stored(store, names)
            assert all_opened(api, items) == found
