"""What requests that begin a generation find after a sequence has ended: a record with a short TTL and a mark."""

from __future__ import annotations

import pytest
from cellkeeper_service.core.generation_requests import CarryOver, Fork, Moved, Policy, Reset, SetState
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.core.requests import Request
from cellkeeper_service.core.sequence import Sequenced
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import DamagedRecord, Load

from .acts import TICK, until
from .world import FOREVER, Reply, World, key, reason

LIMITS = Limits(default_ttl_ms=9000, **TICK)
START, ID, STATE = b"start of a seq  ", b"i" * 16, bytes(8)
OLD, NEW = b"\1", b"\2"


def ended_sequence() -> World:
    world = World(limits=LIMITS, versions=(OLD, NEW))
    world.step([1], sequence=Sequenced(START))
    world.step([2], sequence=Sequenced(end_ttl_ms=500))
    assert header(world).ttl_ms == 500
    return world


def header(world: World, session: str = "s") -> Header:
    (found,) = world.store.load_many([Load(key(session), False)])
    assert isinstance(found, Record)
    return found.header


def ask(kind: str, generation: bytes) -> tuple[Request, Reply]:
    reply = Reply()
    request: Request
    match kind:
        case "reset":
            request = Reset(key(), FOREVER, reply, generation, ID)
        case "set state":
            request = SetState(key(), FOREVER, reply, generation, ID, 7, STATE)
        case "fork":
            request = Fork(key(), FOREVER, reply, key("t"), None, ID)
        case _:
            request = CarryOver(key(), FOREVER, reply, generation, ID, NEW * 32, Policy.RESET, b"", 0)
    return request, reply


@pytest.mark.parametrize("kind", ["reset", "set state", "fork"])
def test_a_generation_made_of_an_ended_one_is_kept_like_a_new_session(kind: str) -> None:
    world = ended_sequence()
    moved = world.ask(*ask(kind, header(world).position.generation))
    session = "t" if kind == "fork" else "s"
    assert header(world, session).position == moved.position
    assert header(world, session).ttl_ms == 9000
    going_on = world.step([3], sequence=Sequenced(), session=session)
    assert going_on.position.step == moved.position.step + 1


def test_a_reset_of_a_damaged_ended_sequence_is_kept_like_a_new_session() -> None:
    world = ended_sequence()
    before, one = header(world), world.replicas[0]
    request, _ = ask("reset", before.position.generation)
    one.core.submit(request)
    one.collect()
    sessions, _ = one.loads.pop()
    one.core.on_loaded(sessions, [DamagedRecord("cut", before)])
    world.settle()
    assert header(world).ttl_ms == 9000


def test_a_sequence_that_has_ended_stays_so_under_another_version() -> None:
    world = ended_sequence()
    generation = header(world).position.generation
    moved = [world.ask(*ask("carry over", generation)) for _ in range(2)]  # the second is a retry
    assert isinstance(moved[0], Moved)
    assert moved[0] == moved[1]
    assert (header(world).fingerprint, header(world).ttl_ms) == (NEW * 32, 500)
    assert reason(world.step([3], sequence=Sequenced())) == "SESSION_NOT_FOUND"


@pytest.mark.parametrize("kind", ["reset", "set state"])
def test_a_retry_finds_its_own_work_after_the_end_too(kind: str) -> None:
    world = ended_sequence()
    generation = header(world).position.generation
    world.ask(*ask(kind, generation))
    world.step([3], sequence=Sequenced(end_ttl_ms=500))
    stands = header(world).position
    assert world.ask(*ask(kind, generation)) == Moved(stands)
    request, reply = ask(kind, generation)
    request.request_id = b"another's request"[:16]  # type: ignore[attr-defined]
    assert reason(world.ask(request, reply)) == "GENERATION_CHANGED"


def test_an_end_in_doubt_is_answered_once_from_the_log() -> None:
    world = World(limits=LIMITS)
    world.step([1], sequence=Sequenced(START))
    end = world.send([2], acked=0, sequence=Sequenced(at=1, end_ttl_ms=500))
    until(world, "writes")
    one = world.replicas[0]
    one.reach_store(one.writes[0])
    one.lose(0)
    world.settle()
    assert (end.result.replayed, header(world).position.step, header(world).ttl_ms) == (True, 2, 500)
