"""A request is one slotted object with a status; events change it, and only `schedule` advances waiting sessions."""

from __future__ import annotations

import pytest
from cellkeeper_service.core import advance, core, generation_requests, requests
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.generation_requests import Open
from cellkeeper_service.core.limits import Clock, Limits
from cellkeeper_service.core.requests import Request, RequestStatus, Step
from cellkeeper_service.core.session import SessionState
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.store.memory import MemoryStore

from . import made
from .made import KEY, nobody
from .world import FOREVER, pack

WAITING, LOADING, READY, COMPUTING, COMMITTING, DONE = RequestStatus
KINDS = [
    kind
    for module in (requests, generation_requests)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Request)
]


class Driven:
    """A core and a memory store, without the help of DrivenCore, which advances the core after every event."""

    def __init__(self, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self.core = Core({"m": made.models()}, limits, Clock(lambda: 0.0, lambda: 0), Meter())
        self.store = MemoryStore()

    def load(self) -> None:
        sessions, loads = self.core.take_loads()
        self.core.on_loaded(sessions, self.store.load_many(loads))

    def compute(self) -> None:
        (batch,) = self.core.schedule()
        batch.execute()
        self.core.on_computed(batch)

    def commit(self) -> None:
        commits = self.core.take_commits()
        self.core.on_committed(commits, self.store.commit_many([one.call for one in commits]))  # type: ignore[misc]


def chunk(inputs: list[int]) -> Step:
    return made.step(inputs)


def opening() -> Open:
    return Open(KEY, FOREVER, nobody, b"o" * 16, None, None, None)


def test_a_chunk_goes_through_every_status() -> None:
    driven = Driven(Limits(max_slice_steps=4))
    core, step = driven.core, chunk([1, 2, 3, 4, 5])
    assert step.status is WAITING
    core.submit_many([step])
    assert step.status is WAITING
    assert core.schedule() == []
    assert step.status is LOADING
    driven.load()
    assert step.status is LOADING  # until `schedule` decides it
    (batch,) = core.schedule()
    assert step.status is COMPUTING
    batch.execute()
    core.on_computed(batch)
    assert step.status is READY  # for the slice that is left
    driven.compute()
    assert step.status is COMMITTING
    driven.commit()
    assert step.status is DONE
    assert core.take_finished() == [step]


def test_a_chunk_that_continues_its_session_is_ready_at_once() -> None:
    driven = Driven()
    for step in (chunk([1]), chunk([2])):
        driven.core.submit_many([step])
        if step.data == pack([1]):
            driven.core.schedule()
            driven.load()
        else:
            assert step.status is READY
        driven.compute()
        driven.commit()
        assert step.status is DONE


def test_a_request_that_computes_nothing_goes_from_its_record_to_its_commit() -> None:
    driven = Driven()
    request = opening()
    driven.core.submit_many([request])
    driven.core.schedule()
    driven.load()
    driven.core.schedule()
    assert request.status is COMMITTING
    driven.commit()
    assert request.status is DONE


def test_a_request_that_is_not_admitted_is_done() -> None:
    driven = Driven(Limits(max_requests=1))
    first, second = opening(), opening()
    driven.core.submit_many([first, second])
    assert (first.status, second.status) == (WAITING, DONE)


def test_only_schedule_advances_waiting_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that did would run another session's code, in whatever state that is, in the middle of its own."""
    scheduling, outside = False, list[SessionState]()

    def watched(context: object, session: SessionState) -> None:
        if not scheduling:
            outside.append(session)
        advance.advance(context, session)  # type: ignore[arg-type]

    monkeypatch.setattr(core, "advance", watched)
    driven = Driven()
    steps = [chunk([1]), chunk([2]), made.step([3], peek=True)]
    driven.core.submit_many(steps)
    for _ in range(20):
        driven.core.expire()
        scheduling = True
        batches = driven.core.schedule()
        scheduling = False
        for batch in batches:
            batch.execute()
            driven.core.on_computed(batch)
        driven.load()
        driven.commit()
    assert [step.status for step in steps] == [DONE] * 3
    assert outside == []


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_requests_have_slots(kind: type[Request]) -> None:
    """A step is one of these, and a dictionary for each would cost more than all its fields."""
    assert not hasattr(object.__new__(kind), "__dict__")
