"""A request_id belongs to one request. Its use for another kind of request or for other content is refused.

Otherwise the record would take it for a retry, and report success although nothing was done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position

from testing.forked_server import ForkedServer

from .calls import Api, Chunk, Refused, Result, new_id, numbers
from .record_changes import change_record
from .test_generations import results, total

MAKERS = ("Open", "Reset", "SetState", "CarryOver", "Fork")


def begin(api: Api, method: str, session: str, at: Position | None, request_id: bytes, value: float = 0) -> Any:
    """Returns the position after it, or the Result that refuses it.

    at: the session's position. value: content that may differ: a state, a policy, or the source of a copy.
    """
    generation = b"" if at is None else at.generation
    item: Any
    match method:
        case "Open":
            state = [total(value)] if value else []
            try:
                return api.open(session, request_id=request_id, initial_state=state)
            except Refused as refused:
                return refused.result
        case "Reset":
            item = pb.ResetRequest.Item(session=session, generation=generation, request_id=request_id)
        case "SetState":
            item = pb.SetStateRequest.Item(
                session=session, generation=generation, request_id=request_id, state=[total(value)]
            )
        case "CarryOver":
            item = pb.CarryOverRequest.Item(
                session=session, generation=generation, request_id=request_id, policy=pb.CarryOverRequest.RESET
            )
        case _:
            item = pb.ForkRequest.Item(source=f"{session}-source{value:g}", target=session, request_id=request_id)
    return results(api, method, [item])[0]


def made(api: Api, method: str, session: str, request_id: bytes) -> Position:
    """Returns the session's position after `method` has begun its generation."""
    for value in (0, 1):
        api.open(f"{session}-source{value}")
    before = None if method in ("Open", "Fork") else api.open(session)
    at = begin(api, method, session, before, request_id)
    assert isinstance(at, Position)
    return at


PAIRS = [(first, second) for first in MAKERS for second in MAKERS if first not in (second, "CarryOver")]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_id_is_not_good_for_another_kind_of_request(count: Api, session: str, first: str, second: str) -> None:
    request_id = new_id()
    at = made(count, first, session, request_id)
    result = begin(count, second, session, at, request_id)
    assert isinstance(result, Result), f"answered with success: {result}"
    assert (result.code, result.reason, result.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "request_id")
    assert count.position(session) == at


@pytest.mark.parametrize("method", ["Open", "Reset", "SetState", "Fork"])
def test_an_id_is_not_good_for_other_content(count: Api, session: str, method: str) -> None:
    request_id = new_id()
    at = made(count, method, session, request_id)
    result = begin(count, method, session, at, request_id, value=1)
    assert isinstance(result, Result), f"answered with success: {result}"
    assert (result.code, result.field) == ("INVALID_ARGUMENT", "request_id")
    assert count.position(session) == at


def test_ids_that_have_much_in_common_are_not_confused(count: Api, session: str) -> None:
    """Some clients count instead of drawing random ids."""
    ids = [bytes(15) + bytes([n]) for n in (1, 2, 3)]
    at = count.open(session, request_id=ids[0])
    for request_id in ids[1:]:
        moved = begin(count, "Reset", session, at, request_id)
        assert isinstance(moved, Position)
        assert moved.generation != at.generation
        at = moved


def test_a_retry_after_later_steps_still_finds_its_work(count: Api, session: str) -> None:
    start, request_id = count.open(session), new_id()
    at = begin(count, "SetState", session, start, request_id, value=7)
    after = count.send("unary", Chunk(session, numbers(1), at)).after
    assert begin(count, "SetState", session, start, request_id, value=7) == after


@pytest.fixture(scope="module")
def older(counting_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, str]]:
    """A server, and its store's URL."""
    store = f"sqlite:{tmp_path_factory.mktemp('older') / 'sessions.db'}"
    with ForkedServer([counting_model], store) as server, server.channel() as channel:
        yield Api(server.stub(channel)), store


@pytest.mark.parametrize("method", MAKERS)
def test_a_retry_finds_the_work_of_a_server_before_the_upgrade(
    older: tuple[Api, str], session: str, method: str
) -> None:
    api, store = older
    request_id, before = new_id(), api.open(session)
    keep_id: Callable[[Any], Any] = lambda record: type(record)(  # noqa: E731
        record.header.replace(origin=request_id), record.checkpoint, record.log
    )
    change_record(store, "count", session, keep_id)
    api.open(f"{session}-source0")
    assert begin(api, method, session, before, request_id) == before
