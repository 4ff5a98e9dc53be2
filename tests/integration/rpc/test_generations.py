"""Open, Reset, SetState, Fork and Delete: what they do, and that a retry of each finds its own work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.domain.position import Position, advance, first_position

from .calls import Api, Chunk, Refused, Result, from_error, from_wire, new_id, numbers, to_wire

OTHER_HEAD = b"not this"


def refusal(api: Api, method: str, request: Any) -> Result:
    with pytest.raises(Refused) as refused:
        api.call(method, request)
    return refused.value.result


def results(api: Api, method: str, items: list[Any]) -> list[Any]:
    """Returns each item's position, or whether it was deleted, or its error."""
    message = getattr(pb, f"{method}Request")(model=api.model, items=items)
    found: list[Any] = []
    for result in api.call(method, message).results:
        if result.HasField("error"):
            found.append(from_error(result.error))
        elif result.HasField("position"):
            found.append(from_wire(result.position))
        else:
            found.append(result.deleted)
    return found


def total(value: float) -> pb.Tensor:
    """Returns the counting model's whole state."""
    return pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 1], data=np.float32(value).tobytes())


def stepped(api: Api, session: str, *values: float) -> Position:
    """Opens a session. Returns its position after these inputs."""
    return api.send("unary", Chunk(session, numbers(*values), api.open(session))).after


# ------------------------------------------------------------------------------------------ Open


def test_open_creates_and_then_continues(count: Api, session: str) -> None:
    first = count.opened(session)
    start = from_wire(first.position)
    assert (first.created, first.ttl_ms) == (True, 0)
    assert start == first_position(start.generation)
    at = count.send("unary", Chunk(session, numbers(2), start)).after
    again = count.opened(session)
    assert (again.created, from_wire(again.position)) == (False, at)
    assert again.fingerprint == first.fingerprint == count.info(session).fingerprint


def test_a_retried_open_still_says_created(count: Api, session: str) -> None:
    request_id = new_id()
    first = count.opened(session, request_id=request_id)
    again = count.opened(session, request_id=request_id)
    assert first == again
    assert again.created


def test_open_finds_the_history_it_expects(count: Api, session: str) -> None:
    start = count.open(session)
    at = count.send("unary", Chunk(session, numbers(1, 2, 3), start)).after
    assert count.open(session, expect=to_wire(at)) == at
    behind = advance(start, numbers(1).tobytes(), 4)
    assert count.open(session, expect=to_wire(behind)) == at  # its own history, further on


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda at: Position(new_id(), at.step, at.head), "GENERATION_CHANGED"),
        (lambda at: Position(at.generation, at.step + 1, at.head), "STEP_GAP"),
        (lambda at: Position(at.generation, at.step, OTHER_HEAD), "HISTORY_CHANGED"),
    ],
    ids=["another generation", "a lost tail", "other inputs"],
)
def test_open_refuses_another_history_than_expected(count: Api, session: str, wrong: Any, reason: str) -> None:
    at = stepped(count, session, 1, 2, 3)
    request = pb.OpenRequest(model="count", session=session, request_id=new_id(), expect=to_wire(wrong(at)))
    got = refusal(count, "Open", request)
    assert (got.reason, got.position) == (reason, at)


def test_open_that_expects_never_creates(count: Api, session: str) -> None:
    expect = to_wire(first_position(new_id()))
    request = pb.OpenRequest(model="count", session=session, request_id=new_id(), expect=expect)
    assert refusal(count, "Open", request).reason == "SESSION_NOT_FOUND"
    assert count.opened(session).created


def test_open_that_expects_what_the_log_has_lost(count: Api, session: str) -> None:
    start = count.open(session)
    at = start
    for _ in range(3):
        at = count.send("unary", Chunk(session, numbers(1), at)).after
    request = pb.OpenRequest(model="count", session=session, request_id=new_id(), expect=to_wire(start))
    got = refusal(count, "Open", request)
    assert (got.reason, got.position) == ("STEP_COMPACTED", at)


def test_open_sets_and_changes_the_ttl(count: Api, session: str) -> None:
    assert count.opened(session, ttl_ms=90_000).ttl_ms == 90_000
    assert count.opened(session).ttl_ms == 90_000
    at = count.send("unary", Chunk(session, numbers(5))).after
    changed = count.opened(session, ttl_ms=80_000)
    assert (changed.ttl_ms, from_wire(changed.position), changed.created) == (80_000, at, False)
    assert count.info(session).ttl_ms == 80_000
    assert count.opened(session, ttl_ms=0).ttl_ms == 0
    assert count.send("unary", Chunk(session, numbers(1), at)).sums == [6]


def test_open_with_a_state_of_its_own(count: Api, session: str) -> None:
    start = count.open(session, initial_state=[total(100)])
    assert count.open(session, initial_state=[total(7)]) == start  # only for a new session
    assert count.send("unary", Chunk(session, numbers(1), start)).sums == [101]


# ------------------------------------------------------------------------------------------ Reset, SetState


def test_reset_starts_another_generation(count: Api, session: str) -> None:
    at = stepped(count, session, 1, 2)
    item = pb.ResetRequest.Item(session=session, generation=at.generation, request_id=new_id())
    (start,) = results(count, "Reset", [item])
    assert start == first_position(start.generation) == count.position(session)
    assert start.generation != at.generation
    assert count.send("unary", Chunk(session, numbers(9), at)).reason == "GENERATION_CHANGED"
    after = count.send("unary", Chunk(session, numbers(9), start)).after
    assert results(count, "Reset", [item]) == [after]  # a retry finds its own generation, whatever the session's step
    assert count.send("unary", Chunk(session, numbers(1), after)).sums == [10]


def test_set_state_starts_another_generation_at_a_step(count: Api, session: str) -> None:
    at = stepped(count, session, 1, 2)
    item = pb.SetStateRequest.Item(
        session=session, generation=at.generation, request_id=new_id(), step=1000, state=[total(50)]
    )
    (start,) = results(count, "SetState", [item])
    assert start == first_position(start.generation, 1000)
    assert results(count, "SetState", [item]) == [start]
    got = count.send("unary", Chunk(session, numbers(1), start))
    assert (got.sums, got.after.step) == ([51], 1001)


@pytest.mark.parametrize("method", ["Reset", "SetState"])
def test_a_new_generation_keeps_the_ttl(count: Api, session: str, method: str) -> None:
    generation = count.open(session, ttl_ms=77_000).generation
    fields = {"session": session, "generation": generation, "request_id": new_id()}
    state = {"state": [total(0)]} if method == "SetState" else {}
    results(count, method, [getattr(pb, f"{method}Request").Item(**fields, **state)])
    assert count.info(session).ttl_ms == 77_000


@pytest.mark.parametrize("method", ["Reset", "SetState"])
def test_a_generation_that_has_ended_is_not_ended_again(count: Api, session: str, method: str) -> None:
    at = stepped(count, session, 1)
    state = {"state": [total(0)]} if method == "SetState" else {}
    make = getattr(pb, f"{method}Request").Item
    other = make(session=session, generation=new_id(), request_id=new_id(), **state)
    nowhere = make(session=session + "-no", generation=new_id(), request_id=new_id(), **state)
    changed, missing = results(count, method, [other, nowhere])
    assert (changed.reason, changed.position) == ("GENERATION_CHANGED", at)
    assert (missing.code, missing.reason) == ("NOT_FOUND", "SESSION_NOT_FOUND")
    assert count.position(session) == at


# ------------------------------------------------------------------------------------------ Fork


def test_fork_copies_and_the_two_go_their_own_ways(count: Api, session: str) -> None:
    at, target = stepped(count, session, 1, 2), f"{session}-fork"
    item = pb.ForkRequest.Item(source=session, target=target, request_id=new_id())
    (start,) = results(count, "Fork", [item])
    assert (start.step, start.head) == (2, at.head)  # the head names the inputs consumed
    assert start.generation != at.generation
    assert count.send("unary", Chunk(target, numbers(10), start)).sums == [13]
    assert count.send("unary", Chunk(session, numbers(20), at)).sums == [23]
    assert results(count, "Fork", [item])[0].generation == start.generation


def test_fork_at_a_position(count: Api, session: str) -> None:
    start = count.open(session)
    at = count.send("unary", Chunk(session, numbers(1, 2, 3), start)).after
    middle = advance(start, numbers(1, 2).tobytes(), 4)
    item = pb.ForkRequest.Item(source=session, target=f"{session}-fork", request_id=new_id(), position=to_wire(middle))
    (copy,) = results(count, "Fork", [item])
    assert (copy.step, copy.head) == (2, middle.head)
    assert count.send("unary", Chunk(f"{session}-fork", numbers(10), copy)).sums == [13]
    assert count.position(session) == at


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda at: Position(new_id(), at.step, at.head), "GENERATION_CHANGED"),
        (lambda at: Position(at.generation, at.step + 1, at.head), "STEP_GAP"),
        (lambda at: Position(at.generation, at.step, OTHER_HEAD), "HISTORY_CHANGED"),
    ],
    ids=["another generation", "ahead", "other inputs"],
)
def test_fork_at_a_point_that_is_not_of_this_history(count: Api, session: str, wrong: Any, reason: str) -> None:
    at = stepped(count, session, 1, 2)
    place = to_wire(wrong(at))
    item = pb.ForkRequest.Item(source=session, target=f"{session}-fork", request_id=new_id(), position=place)
    (got,) = results(count, "Fork", [item])
    assert (got.reason, got.position) == (reason, at)


def test_fork_does_not_write_over_a_session(count: Api, session: str) -> None:
    stepped(count, session, 1)
    there = stepped(count, f"{session}-fork", 5)
    item = pb.ForkRequest.Item(source=session, target=f"{session}-fork", request_id=new_id())
    (got,) = results(count, "Fork", [item])
    assert (got.code, got.reason, got.field, got.position) == ("ALREADY_EXISTS", "SESSION_EXISTS", "target", None)
    assert count.position(f"{session}-fork") == there


def test_a_retried_fork_finds_its_target_though_the_source_is_gone(count: Api, session: str) -> None:
    at, target = stepped(count, session, 1, 2), f"{session}-fork"
    item = pb.ForkRequest.Item(source=session, target=target, request_id=new_id())
    (start,) = results(count, "Fork", [item])
    assert results(count, "Delete", [pb.DeleteRequest.Item(session=session, generation=at.generation)]) == [True]
    assert results(count, "Fork", [item]) == [start]
    other = pb.ForkRequest.Item(source=session, target=f"{session}-2", request_id=new_id())
    assert results(count, "Fork", [other])[0].reason == "SESSION_NOT_FOUND"


def test_a_fork_has_the_ttl_of_its_source_or_its_own(count: Api, session: str) -> None:
    count.open(session, ttl_ms=77_000)
    for ttl_ms, expected in ((None, 77_000), (0, 0), (5_000, 5_000)):
        target, at = f"{session}-{ttl_ms}", count.position(session)
        item = pb.ForkRequest.Item(source=session, target=target, request_id=new_id(), ttl_ms=ttl_ms)
        (start,) = results(count, "Fork", [item])
        assert count.info(target).ttl_ms == expected
        assert results(count, "Fork", [item]) == [start]  # a retry
        item.ClearField("ttl_ms")
        assert results(count, "Fork", [item]) == [start]  # the retry of a request that a server without TTLs has read
        assert count.info(target).ttl_ms == expected
        assert (count.info(session).ttl_ms, count.position(session)) == (77_000, at)
    beyond = pb.ForkRequest.Item(source=session, target=f"{session}-2", request_id=new_id(), ttl_ms=2**63)
    assert results(count, "Fork", [beyond])[0].field == "items[0].ttl_ms"


# ------------------------------------------------------------------------------------------ Delete


def test_delete_ends_the_generation_that_it_names(count: Api, session: str) -> None:
    at = stepped(count, session, 1)
    item = pb.DeleteRequest.Item(session=session, generation=at.generation)
    other = pb.DeleteRequest.Item(session=session, generation=new_id())
    assert results(count, "Delete", [other]) == [False]
    assert count.position(session) == at
    assert results(count, "Delete", [item]) == [True]
    assert results(count, "Delete", [item]) == [False]
    assert count.send("unary", Chunk(session, numbers(1), at)).reason == "SESSION_NOT_FOUND"
    again = count.send("unary", Chunk(session, numbers(1)))
    assert (again.created, again.sums) == (True, [1])
    assert results(count, "Delete", [item]) == [False]  # a late copy of a delete does not end the next generation
    assert count.position(session) == again.after


# ------------------------------------------------------------------------------------------ many items


def test_each_item_succeeds_or_fails_on_its_own(count: Api, session: str) -> None:
    at = {index: stepped(count, f"{session}-{index}", index + 1) for index in range(4)}
    items = [
        pb.ResetRequest.Item(session=f"{session}-0", generation=at[0].generation, request_id=new_id()),
        pb.ResetRequest.Item(session=f"{session}-1", generation=b"short", request_id=new_id()),
        pb.ResetRequest.Item(session=f"{session}-2", generation=at[2].generation, request_id=b""),
        pb.ResetRequest.Item(session="", generation=at[2].generation, request_id=new_id()),
        pb.ResetRequest.Item(session=f"{session}-0", generation=at[0].generation, request_id=new_id()),
        pb.ResetRequest.Item(session=f"{session}-no", generation=at[0].generation, request_id=new_id()),
        pb.ResetRequest.Item(session=f"{session}-3", generation=at[3].generation, request_id=new_id()),
    ]
    found = results(count, "Reset", items)
    reasons = ["" if isinstance(result, Position) else result.reason for result in found]
    invalid, twice, missing = "INVALID_FIELD", "DUPLICATE_SESSION", "SESSION_NOT_FOUND"
    assert reasons == ["", invalid, invalid, invalid, twice, missing, ""]
    fields = ["items[1].generation", "items[2].request_id", "items[3].session", "items[4]"]
    assert [result.field for result in found[1:5]] == fields
    assert count.position(f"{session}-0") == found[0]
    assert count.position(f"{session}-1") == at[1]
    assert count.position(f"{session}-2") == at[2]
