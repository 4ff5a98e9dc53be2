"""Admission control as the core uses it: its clock, its meter, its requests."""

from __future__ import annotations

from collections import Counter

from cellkeeper_service.core.admission import AdmissionControl as Control
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.generation_requests import Fork
from cellkeeper_service.core.limits import Clock, Limits
from cellkeeper_service.core.requests import RequestStatus
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.errors import Reason

from . import made
from .admission import LATE, at_work, enter, fill, request, text


class CountingMeter(Meter):
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def rejected(self, reason: str) -> None:
        self.counts[reason] += 1


class Replica:
    """A core with a clock that a test can set."""

    def __init__(self) -> None:
        self.now, self.meter = 0.0, CountingMeter()
        self.core = Core({"m": made.models()}, Limits(), Clock(lambda: self.now, lambda: 0), self.meter)

    @property
    def admission(self) -> Control:
        return self.core.context.admission


def test_every_step_of_a_frame_that_is_refused_unread_is_counted() -> None:
    replica = Replica()
    replica.now = 5.0
    assert text(replica.core.refuse(64, deadline=5.0)) == LATE
    assert replica.core.refuse(64, deadline=5.1) is None
    assert replica.meter.counts == {Reason.QUEUE_FULL.value: 64}


def test_the_core_counts_answers_by_its_clock() -> None:
    replica = Replica()
    replica.now = 5.0
    replica.core.answered(came=3.0)
    assert text(replica.core.refuse(1, deadline=6.9)) == LATE
    assert replica.core.refuse(1, deadline=7.1) is None


def test_a_request_that_would_miss_its_deadline_has_its_result_at_once() -> None:
    replica = Replica()
    at_work(1000, to=replica.admission)
    fill(replica.admission, 510, now=1.0)
    replica.now = 1.0
    step = request(2.0)
    replica.core.submit_many((step,))
    assert replica.core.take_finished() == [step]
    assert text(step.result) == LATE
    assert replica.core.unanswered == 510
    assert replica.meter.counts[Reason.QUEUE_FULL.value] == 1


def test_a_fork_that_goes_on_in_its_target_is_not_finished() -> None:
    replica = Replica()
    fork = Fork(made.KEY, 1e9, made.nobody, SessionKey("", "m", "target"), None, b"r" * 16)
    replica.core.submit_many((fork,))
    fill(replica.admission, 2, now=0.0)  # so that it is never idle
    replica.core.schedule()
    replica.now = 1.0
    sessions, loads = replica.core.take_loads()
    replica.core.on_loaded(sessions, [made.record(made.version(), [1, 2]) for _ in loads])
    replica.core.schedule()
    assert (fork.key, fork.status) == (fork.target, RequestStatus.LOADING)
    assert replica.core.unanswered == 2, "the fork leaves its source's queue and enters its target's"
    source = made.record(made.version(), [1, 2])
    assert fork.held_bytes == len(source.checkpoint) + len(source.log)
    enter(replica.admission, 1, now=1.0)
    assert replica.admission.requests_per_second == 0.0
