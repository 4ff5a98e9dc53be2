"""A damaged record harms only its own session: it is refused with its own reason, listed, and can be deleted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cellkeeper import Client, RecordDamaged
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.forked_program import run_forked
from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer

from .calls import Api, Chunk, Refused, Result, Way, frame_message, from_error, from_wire, new_id, numbers
from .vault import Vault

LOST = ("DATA_LOSS", "DATA_LOSS")
NEIGHBOURS = 7


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def server(
    request: pytest.FixtureRequest, counting_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ForkedServer]:
    if request.param == "sqlite":
        with ForkedServer([counting_model], f"sqlite:{tmp_path_factory.mktemp('damaged') / 'sessions.db'}") as served:
            yield served
    else:
        with RedisServer() as redis, ForkedServer([counting_model], redis.url) as served:
            yield served


@pytest.fixture(scope="module")
def api(server: ForkedServer) -> Iterator[Api]:
    with server.channel() as channel:
        yield Api(server.stub(channel))


@pytest.fixture(scope="module")
def vault(server: ForkedServer, api: Api) -> Iterator[Vault]:
    with Vault(server.store, api) as made:
        yield made


Damage = Callable[[Vault, str], Any]
FIELDS: dict[str, dict[str, int]] = {
    "time steps of no bytes": {"step_bytes": 0},
    "a step that is the last there is": {"step": 2**64 - 1, "checkpoint_step": 2**64 - 1},
    "a step that no position has": {"step": 2**63, "checkpoint_step": 2**63},
    "a checkpoint behind the step": {"checkpoint_step": 4},
    "a last commit in the year 60000": {"updated_ms": 2**51},
    "a beginning in the year 60000": {"created_ms": 2**51},
}
HEADERS: dict[str, Damage] = {
    name: lambda vault, session, fields=fields: vault.put(session, 1, 2, 3, **fields)  # type: ignore[misc]
    for name, fields in FIELDS.items()
}


def without_header(vault: Vault, session: str) -> None:
    vault.put(session, 1, 2, 3)
    vault.spoil_header(session)


def flipped_log(vault: Vault, session: str) -> None:
    vault.put(session, 1, 2, 3)
    vault.flip_log(session)


def swapped_log(vault: Vault, session: str) -> None:
    vault.put(session, 1, 2, 3)
    vault.swap_log(session)


def flipped_checkpoint(vault: Vault, session: str) -> None:
    vault.put(session, 1, 2, 3)
    vault.flip_checkpoint(session)


LOGS: dict[str, Damage] = {
    "a flipped bit in the log": flipped_log,
    "swapped inputs in the log": swapped_log,
    "a flipped bit in the checkpoint": flipped_checkpoint,
}
ALL = {**HEADERS, "no header": without_header, **LOGS}


@pytest.fixture(params=ALL)
def damage(request: pytest.FixtureRequest) -> Damage:
    return ALL[request.param]


@pytest.fixture(params=HEADERS | LOGS)
def readable(request: pytest.FixtureRequest) -> Damage:
    """The kinds of damage that leave the generation in the header readable."""
    return ALL[request.param]


def results_of(reply: pb.SessionResults) -> list[Result]:
    return [
        from_error(item.error) if item.HasField("error") else Result("OK", position=from_wire(item.position))
        for item in reply.results
    ]


def deleted(api: Api, session: str, generation: bytes) -> pb.SessionResult:
    item = pb.DeleteRequest.Item(session=session, generation=generation)
    reply: pb.SessionResults = api.call("Delete", pb.DeleteRequest(model=api.model, items=[item]))
    return reply.results[0]


def listed(api: Api, prefix: str) -> dict[str, pb.SessionInfo]:
    page = api.call("ListSessions", pb.ListSessionsRequest(model=api.model, prefix=prefix))
    return {info.session: info for info in page.sessions}


def refusal(call: Callable[[], Any]) -> Result:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.result


def generation_of(result: Result) -> bytes:
    return b"" if result.position is None else result.position.generation


@pytest.mark.parametrize("frame_way", ["batch", "stream"])
def test_it_is_refused_alone_and_its_neighbours_are_served(
    api: Api, vault: Vault, session: str, damage: Damage, frame_way: Way
) -> None:
    names = [f"{session}-{index}" for index in range(NEIGHBOURS)]
    places = [vault.put(name, 1, 2).position for name in names]
    damage(vault, f"{session}-damaged")
    chunks = [Chunk(name, numbers(3), place) for name, place in zip(names, places, strict=True)]
    chunks.insert(3, Chunk(f"{session}-damaged", numbers(3), places[0]))
    got = api.send_frame(frame_way, frame_message("count", chunks))
    broken = got.pop(3)
    assert (broken.code, broken.reason, broken.retry_delay_ms) == (*LOST, 0)
    assert "damaged" in broken.message
    assert "delete" in broken.message
    assert [result.sums for result in got] == [[6.0]] * NEIGHBOURS


def test_every_call_says_so_and_forks_of_others_go_on(api: Api, vault: Vault, session: str, damage: Damage) -> None:
    damage(vault, session)
    names = [f"{session}-{index}" for index in range(NEIGHBOURS)]
    for name in names:
        vault.put(name, 1, 2)
    items = [pb.ForkRequest.Item(source=name, target=f"{name}-copy", request_id=new_id()) for name in names]
    items.insert(3, pb.ForkRequest.Item(source=session, target=f"{session}-copy", request_id=new_id()))
    got = results_of(api.call("Fork", pb.ForkRequest(model="count", items=items)))
    broken = got.pop(3)
    assert (broken.code, broken.reason) == LOST
    assert [result.code for result in got] == ["OK"] * NEIGHBOURS
    calls: list[Callable[[], Any]] = [
        lambda: api.open(session),
        lambda: api.info(session),
        lambda: api.call("GetState", pb.GetStateRequest(model="count", session=session)),
    ]
    for call in calls:
        result = refusal(call)
        assert (result.code, result.reason) == LOST
    step = api.send("unary", Chunk(session, numbers(1)))
    assert (step.code, step.reason) == LOST
    assert api.open(f"{session}-new").step == 0


@pytest.mark.parametrize("damage", [*HEADERS, "no header"], indirect=True)
def test_it_is_listed_as_damaged_among_the_others(api: Api, vault: Vault, session: str, damage: Damage) -> None:
    at = vault.put(f"{session}-whole", 1, 2).position
    damage(vault, f"{session}-damaged")
    found = listed(api, session)
    assert sorted(found) == [f"{session}-damaged", f"{session}-whole"]
    assert (found[f"{session}-whole"].damage, from_wire(found[f"{session}-whole"].position)) == ("", at)
    assert "damaged" in found[f"{session}-damaged"].damage


def test_it_can_be_deleted_and_started_anew(api: Api, vault: Vault, session: str, damage: Damage) -> None:
    damage(vault, session)
    known = generation_of(refusal(lambda: api.info(session)))
    assert deleted(api, session, known).deleted
    assert not listed(api, session)
    assert api.send("unary", Chunk(session, numbers(5), api.open(session))).sums == [5.0]


def test_without_a_generation_it_is_deleted_too(api: Api, vault: Vault, session: str, readable: Damage) -> None:
    readable(vault, session)
    assert deleted(api, session, b"").deleted
    assert not listed(api, session)


def test_another_generation_of_it_is_over_already(api: Api, vault: Vault, session: str, readable: Damage) -> None:
    readable(vault, session)
    result = deleted(api, session, new_id())
    assert (result.HasField("error"), result.deleted) == (False, False)
    assert refusal(lambda: api.info(session)).reason == "DATA_LOSS"


def test_a_generation_that_cannot_be_compared_deletes_nothing(api: Api, vault: Vault, session: str) -> None:
    without_header(vault, session)
    result = from_error(deleted(api, session, new_id()).error)
    assert (result.code, result.reason) == LOST
    assert "without a generation" in result.message
    assert refusal(lambda: api.info(session)).reason == "DATA_LOSS"


def test_a_whole_session_is_never_deleted_without_its_generation(api: Api, session: str) -> None:
    at = api.open(session)
    result = from_error(deleted(api, session, b"").error)
    assert (result.code, result.reason, result.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "items[0].generation")
    assert api.position(session) == at


def test_it_can_be_reset(api: Api, vault: Vault, session: str, readable: Damage) -> None:
    readable(vault, session)
    known = generation_of(refusal(lambda: api.info(session)))
    item = pb.ResetRequest.Item(session=session, generation=known, request_id=new_id())
    for _ in range(2):  # the second is a retry
        (got,) = results_of(api.call("Reset", pb.ResetRequest(model="count", items=[item])))
        assert got.after.step == 0
        assert api.position(session) == got.after
    assert api.send("unary", Chunk(session, numbers(5), got.after)).sums == [5.0]
    assert listed(api, session)[session].damage == ""


def test_where_nothing_can_be_compared_a_reset_says_that_it_is_to_be_deleted(
    api: Api, vault: Vault, session: str
) -> None:
    without_header(vault, session)
    item = pb.ResetRequest.Item(session=session, generation=new_id(), request_id=new_id())
    (got,) = results_of(api.call("Reset", pb.ResetRequest(model="count", items=[item])))
    assert (got.code, got.reason) == LOST
    assert "delete it" in got.message


def test_a_record_that_is_damaged_while_its_session_is_hot(api: Api, vault: Vault, session: str) -> None:
    at = api.send("unary", Chunk(session, numbers(1), api.open(session))).after
    vault.spoil_header(session)
    for _ in range(2):
        got = api.send("unary", Chunk(session, numbers(1), at))
        assert (got.code, got.reason) == LOST


@pytest.mark.parametrize("damage", ["no header", "a flipped bit in the log"], indirect=True)
def test_the_client_and_its_program(server: ForkedServer, vault: Vault, session: str, damage: Damage) -> None:
    damage(vault, session)
    with Client(server.target) as client:
        with pytest.raises(RecordDamaged, match="damaged"):
            client.session(session, timeout=5)
        damages = {info.session: info.damage for info in client.sessions(session)}
        assert list(damages) == [session]
    environment = {**os.environ, "CELLKEEPER_ENDPOINT": server.target}

    def said(*words: str) -> str:
        ended = run_forked("cellkeeper", ["sessions", *words], environment, 60)
        assert ended.status == 0, ended.err
        return ended.out

    assert ("damaged" in said("list", "--prefix", session)) == bool(damages[session])
    said("reset", session)
    assert "damaged" not in said("list", "--prefix", session)
    with Client(server.target) as client:
        assert client.session(session).step([5.0]).tolist() == [5.0]
    damage(vault, f"{session}-2")
    said("delete", f"{session}-2")
    (header,) = said("list", "--prefix", f"{session}-2").splitlines()
    assert header.startswith("SESSION\t")


def pages(api: Api, prefix: str, page_size: int) -> Iterator[pb.SessionInfo]:
    """Yields the sessions of every page."""
    token = ""
    while True:
        request = pb.ListSessionsRequest(model=api.model, prefix=prefix, page_size=page_size, page_token=token)
        page = api.call("ListSessions", request)
        yield from page.sessions
        token = page.next_page_token
        if not token:
            return


@pytest.mark.parametrize("bad", [b"\xff", b"-\x80-", b"\xc3"])
def test_an_id_that_is_not_utf8_is_listed_as_damaged_and_can_be_deleted(
    server: ForkedServer, api: Api, vault: Vault, session: str, bad: bytes
) -> None:
    if not server.store.startswith("sqlite:"):
        pytest.skip("Redis keys that are no session's are logged, and left out")
    for name in ("", "-a", "-z", "-damaged"):
        vault.put(f"{session}{name}", 1, 2)
    vault.spoil_id(f"{session}-damaged", session.encode() + bad)
    shown = session + bad.decode(errors="backslashreplace")
    for page_size in (1, 100):
        found = {info.session: info.damage for info in pages(api, session, page_size)}
        assert sorted(found) == sorted([session, f"{session}-a", f"{session}-z", shown])
        assert {name for name, damage in found.items() if damage} == {shown}
        assert "not UTF-8" in found[shown]
    for call in (lambda: api.open(shown), lambda: api.info(shown)):
        assert refusal(call).reason == "DATA_LOSS"
    item = pb.ResetRequest.Item(session=shown, generation=new_id(), request_id=new_id())
    (reset,) = results_of(api.call("Reset", pb.ResetRequest(model="count", items=[item])))
    assert (reset.code, reset.reason) == LOST
    assert deleted(api, shown, b"").deleted
    assert sorted(listed(api, session)) == [session, f"{session}-a", f"{session}-z"]
    assert api.open(shown).step == 0  # the text itself is an id like any other
    assert shown in listed(api, session)


@pytest.mark.parametrize("header", [7, "text", b"\xff", 1.5])
def test_a_header_of_another_type_is_damage_like_any_other(
    server: ForkedServer, api: Api, vault: Vault, session: str, header: object
) -> None:
    if not server.store.startswith("sqlite:"):
        pytest.skip("Redis has bytes only")
    vault.put(session, 1, 2)
    vault.execute("UPDATE records SET checked_header = ?", (header, session))
    assert "damaged" in listed(api, session)[session].damage
    assert refusal(lambda: api.info(session)).reason == "DATA_LOSS"
    assert deleted(api, session, b"").deleted


@pytest.mark.parametrize("ttl_ms", [1 << 50, 2**64 - 1])
def test_every_ttl_of_a_record_means_something(api: Api, vault: Vault, session: str, ttl_ms: int) -> None:
    """A TTL that no request may ask for is not damage: stores keep the record as long as they can."""
    at = vault.put(session, 1, 2, ttl_ms=ttl_ms).position
    assert api.open(session) == at
    got = api.send("unary", Chunk(session, numbers(3), at))
    assert got.sums == [6.0]
    found = listed(api, session)[session]
    assert (found.damage, found.ttl_ms) == ("", ttl_ms)
    item = pb.ResetRequest.Item(session=session, generation=at.generation, request_id=new_id())
    (reset,) = results_of(api.call("Reset", pb.ResetRequest(model="count", items=[item])))
    assert (reset.code, reset.after.step) == ("OK", 0)
