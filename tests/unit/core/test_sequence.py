"""Chunks placed by a start flag and a step number. The model adds up its inputs."""

from __future__ import annotations

from typing import Any

import pytest
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.decision_table import Verdict, decide
from cellkeeper_service.core.requests import RequestStatus, Step
from cellkeeper_service.core.sequence import Sequenced
from cellkeeper_service.domain.record import Header, Record
from cellkeeper_service.domain.store import DamagedRecord, Load
from cellkeeper_service.errors import Rejection

from .counting_engine import expected
from .made import models, record, step, version
from .world import FOREVER, Reply, World, key, pack, reason

SERVED = models(version())
STANDS = record(SERVED.default, [1, 2, 3, 4], checkpoint_step=1)
START, OTHER_START = b"start of a seq  ", b"another's start "
ANYWHERE = Sequenced()


def outcome(inputs: list[int], sequence: Sequenced, found: Record | None = STANDS) -> str:
    asked = step(inputs)
    asked.sequence = sequence
    verdict = decide(found, asked, SERVED)
    return verdict.reason.name if isinstance(verdict, Rejection) else verdict.name


def header(world: World, session: str = "s") -> Header:
    (found,) = world.store.load_many([Load(key(session), False)])
    assert isinstance(found, Record)
    return found.header


def outputs(result: Any) -> list[int]:
    values: list[int] = result.outputs["prediction"].tolist()
    return values


def in_flight(world: World, replica: int = 0) -> None:
    """Runs the replica until its commit is under way."""
    one = world.replicas[replica]
    while not one.writes:
        one.collect()
        while one.loads:
            one.load(0)
        while one.batches:
            one.compute(0)


@pytest.mark.parametrize(
    ("inputs", "at", "expects"),
    [
        ([5], 4, "APPLY"),
        ([5], 5, "STEP_GAP"),
        ([1], 0, "STEP_COMPACTED"),
        ([3], 2, "REPLAY"),
        ([2, 3, 4], 1, "REPLAY"),
        ([4, 5], 3, "STEP_CONFLICT"),
        ([9], 2, "STEP_CONFLICT"),
        ([9], None, "APPLY"),
    ],
)
def test_a_step_number_is_decided_like_a_position_of_the_history_that_stands_there(
    inputs: list[int], at: int | None, expects: str
) -> None:
    assert outcome(inputs, Sequenced(at=at)) == expects


@pytest.mark.parametrize("at", [None, 0, 1])
def test_only_a_start_creates_a_session(at: int | None) -> None:
    assert outcome([1], Sequenced(at=at), None) == "SESSION_NOT_FOUND"
    assert outcome([1], Sequenced(START, at), None) == "CREATE"


def test_a_start_is_recognized_by_its_origin_alone() -> None:
    own = record(SERVED.default, [1, 2, 3], origin=START)
    assert outcome([1], Sequenced(START, 0), own) == "REPLAY"
    assert outcome([1], Sequenced(OTHER_START, 0), own) == "CREATE"
    compacted = record(SERVED.default, [1, 2, 3], checkpoint_step=2, origin=START)
    assert outcome([1], Sequenced(START, 0), compacted) == "STEP_COMPACTED"


def test_a_start_after_a_lost_race_is_refused_unless_it_was_its_own() -> None:
    asked = step([1])
    asked.sequence, asked.conflicts = Sequenced(START, 0), 1
    refused = decide(STANDS, asked, SERVED)
    assert reason(refused) == "COMMIT_CONFLICT"
    assert decide(record(SERVED.default, [1], origin=START), asked, SERVED) is Verdict.REPLAY


def test_a_sequence_continues_on_another_replica_and_after_its_start() -> None:
    world = World(replicas=2)
    assert outputs(world.step([1], sequence=Sequenced(START))) == expected([1])
    assert outputs(world.step([2], sequence=ANYWHERE, replica=1)) == expected([1, 2])[1:]
    assert outputs(world.step([3], sequence=Sequenced(at=2))) == expected([1, 2, 3])[2:]
    first = header(world).position.generation
    again = world.step([7], sequence=Sequenced(OTHER_START), replica=1)
    assert (outputs(again), again.created) == (expected([7]), True)
    assert header(world).position.generation != first
    assert outputs(world.step([8], sequence=ANYWHERE)) == expected([7, 8])[1:]
    for replica in world.replicas:
        replica.check_rest()


def test_a_sequence_that_is_not_stored_any_more_is_not_created_anew() -> None:
    """The cached state is stale: its record is gone."""
    world = World()
    world.step([1], sequence=Sequenced(START, end_ttl_ms=10))
    world.now += 1
    assert reason(world.step([2], sequence=ANYWHERE)) == "SESSION_NOT_FOUND"


def test_what_is_sent_behind_a_start_without_waiting_belongs_to_it() -> None:
    world = World()
    world.step([1, 2], sequence=Sequenced(START))
    sent = [world.send([5], sequence=Sequenced(OTHER_START)), *(world.send([n], sequence=ANYWHERE) for n in (6, 7))]
    world.settle()
    assert [reply.outputs for reply in sent] == [[value] for value in expected([5, 6, 7])]


def test_a_chunk_that_is_repeated_is_answered_from_the_log() -> None:
    world = World(replicas=2)
    world.step([1], sequence=Sequenced(START, 0))
    twice = [world.send([2], acked=0, sequence=Sequenced(at=1)) for _ in range(2)]
    world.settle()
    assert [reply.outputs for reply in twice] == [expected([1, 2])[1:]] * 2
    assert [reply.result.replayed for reply in twice] == [False, True]
    started = world.step([1], sequence=Sequenced(START, 0), replica=1)
    assert (outputs(started), started.replayed, header(world).position.step) == (expected([1]), True, 2)


def test_the_ordinary_numbered_step_reads_nothing() -> None:
    world = World()
    world.step([1], sequence=Sequenced(START))
    reply = world.send([2], sequence=Sequenced(at=1))
    in_flight(world)
    assert not world.replicas[0].loads
    world.settle()
    assert reply.outputs == expected([1, 2])[1:]


@pytest.mark.parametrize("due_steps", [1, 64], ids=["with its checkpoint", "appended alone"])
def test_a_sequence_that_has_ended_is_kept_for_repeated_chunks_alone(due_steps: int) -> None:
    world = World(replicas=2)
    for one in world.replicas:
        one.version.due_steps = due_steps
    world.step([1], sequence=Sequenced(START))
    assert header(world).ttl_ms == 0
    asked = [Sequenced(), Sequenced(end_ttl_ms=500), Sequenced()]
    replies = [world.send([n], acked=0, sequence=place) for n, place in zip((2, 3, 4), asked, strict=True)]
    world.settle()
    assert [reply.outputs for reply in replies[:2]] == [[value] for value in expected([1, 2, 3])[1:]]
    assert reason(replies[2].result) == "SESSION_NOT_FOUND"
    assert (header(world).ttl_ms, header(world).position.step) == (500, 3)
    for replica in (0, 1):
        again = world.step([3], sequence=Sequenced(at=2, end_ttl_ms=500), replica=replica)
        assert (outputs(again), again.replayed) == (expected([1, 2, 3])[2:], True)
        for at in (None, 3):
            assert reason(world.step([4], sequence=Sequenced(at=at), replica=replica)) == "SESSION_NOT_FOUND"
    assert outputs(world.step([1], sequence=Sequenced(OTHER_START))) == expected([1])
    assert header(world).ttl_ms == 0
    assert outputs(world.step([2], sequence=ANYWHERE)) == expected([1, 2])[1:]


@pytest.mark.parametrize("waits", [False, True], ids=["nothing in flight", "the end waits for a commit"])
def test_a_step_with_a_position_does_not_open_an_ended_sequence_again(waits: bool) -> None:
    """A client with positions may continue the session; one that continues the sequence is told that it has ended."""
    world = World()
    world.step([1], sequence=Sequenced(START))
    if waits:
        world.send([2], sequence=ANYWHERE)
        in_flight(world)
    world.send([3], sequence=Sequenced(end_ttl_ms=500))
    one = world.replicas[0]
    one.collect()
    one.compute(0)
    cached = one.sessions[key()].cached
    assert cached is not None
    positioned, behind = world.send([4], cached.frontier), world.send([5], sequence=ANYWHERE)
    world.settle()
    assert positioned.outputs == expected([1, 2, 3, 4] if waits else [1, 3, 4])[-1:]
    assert reason(behind.result) == "SESSION_NOT_FOUND"


@pytest.mark.parametrize("origin", [OTHER_START, START, b""], ids=["another start", "its own start", "no start"])
def test_only_another_start_replaces_a_damaged_record(origin: bytes) -> None:
    world = World()
    world.step([1, 2], sequence=Sequenced(START))
    before, one = header(world), world.replicas[0]
    reply = world.send([5], sequence=Sequenced(origin, at=0))
    one.collect()
    sessions, _ = one.loads.pop()
    one.core.on_loaded(sessions, [DamagedRecord("cut", before)])
    world.settle()
    if origin == OTHER_START:
        assert reply.outputs == expected([5])
        assert header(world).position.generation != before.position.generation
    else:
        assert reason(reply.result) == "DATA_LOSS"
        assert header(world) == before


def test_a_start_is_recognized_after_the_end_of_its_sequence() -> None:
    """Otherwise a late copy would leave a sequence that nobody ends."""
    world = World()
    world.step([1], sequence=Sequenced(START, 0))
    world.step([2], acked=0, sequence=Sequenced(at=1, end_ttl_ms=500))
    again = world.step([1], sequence=Sequenced(START, 0))
    assert (outputs(again), again.replayed) == (expected([1]), True)
    assert (header(world).ttl_ms, header(world).position.step) == (500, 2)


def test_a_sequence_may_start_and_end_in_one_chunk() -> None:
    world = World()
    whole = Sequenced(START, 0, end_ttl_ms=500)
    for replayed in (False, True):
        reply = world.step([1], sequence=whole)
        assert (outputs(reply), reply.replayed) == (expected([1]), replayed)
    assert header(world).ttl_ms == 500
    assert reason(world.step([2], sequence=ANYWHERE)) == "SESSION_NOT_FOUND"
    world.now += 1
    assert world.store.load_many([Load(key(), False)]) == [None]


def test_a_late_start_does_not_end_a_generation_that_began_meanwhile() -> None:
    """The client gave up on one replica and started at the other, which acknowledged its steps."""
    world = World(replicas=2)
    world.step([9], sequence=Sequenced(b"before all this "))
    late = world.send([1], sequence=Sequenced(START))
    in_flight(world)
    world.replicas[1].core.submit(_start(again := Reply()))
    _settle(world, 1)
    assert again.outputs == expected([1])
    world.settle()
    assert reason(late.result) == "COMMIT_CONFLICT"
    assert outputs(world.step([2], sequence=Sequenced(at=1))) == expected([1, 2])[1:]


def test_a_late_copy_of_a_start_finds_its_own_work() -> None:
    world = World(replicas=2)
    world.step([9], sequence=Sequenced(b"before all this "))
    late = world.send([1], sequence=Sequenced(START, 0))
    in_flight(world)
    world.send([1], sequence=Sequenced(START, 0), replica=1)
    _settle(world, 1)
    world.send([2], acked=0, sequence=Sequenced(at=1), replica=1)
    _settle(world, 1)
    world.settle()
    assert (late.outputs, late.result.replayed) == (expected([1]), True)
    assert header(world).position.step == 2


def _start(reply: Reply) -> Any:
    asked = step([1])
    asked.key, asked.done, asked.wanted, asked.sequence = (
        key(),
        reply,
        frozenset(["prediction"]),
        Sequenced(OTHER_START),
    )
    return asked


def _settle(world: World, replica: int) -> None:
    while world.replicas[replica].work():
        pass


@pytest.mark.parametrize(
    ("sequence", "status"),
    [
        (ANYWHERE, RequestStatus.READY),
        (Sequenced(at=1), RequestStatus.READY),
        (Sequenced(at=2), RequestStatus.WAITING),
        (Sequenced(OTHER_START), RequestStatus.WAITING),
    ],
)
def test_a_chunk_that_continues_its_sequence_is_ready_for_the_next_batch_when_it_comes(
    sequence: Sequenced, status: RequestStatus
) -> None:
    """Like a chunk with a position, it needs no decision in an earlier turn of the core."""
    world = World()
    world.step([1], sequence=Sequenced(START))
    asked = Step(key(), FOREVER, Reply(), pack([2]), 1, None, None, False, frozenset(), False, sequence=sequence)
    Core.submit_many(world.replicas[0].core, [asked])
    assert asked.status is status


def test_a_chunk_behind_the_end_of_its_sequence_waits_for_what_the_store_says() -> None:
    world = World()
    world.step([1], sequence=Sequenced(START))
    world.send([2], sequence=Sequenced(end_ttl_ms=500))
    in_flight(world)
    asked = Step(key(), FOREVER, Reply(), pack([3]), 1, None, None, False, frozenset(), False, sequence=ANYWHERE)
    Core.submit_many(world.replicas[0].core, [asked])
    assert asked.status is RequestStatus.WAITING
