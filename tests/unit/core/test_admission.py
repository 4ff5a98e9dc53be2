"""Admission control: a request that would miss its deadline is refused on arrival, not when it is too late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest
from cellkeeper_service.core.admission import (
    FEW_REQUESTS,
    FREE_REQUESTS,
    LATENCY_WINDOW_SECONDS,
    RATE_WINDOW_SECONDS,
)
from cellkeeper_service.core.admission import AdmissionControl as Control
from cellkeeper_service.core.core import Core
from cellkeeper_service.core.generation_requests import Fork
from cellkeeper_service.core.limits import Clock, Limits
from cellkeeper_service.core.requests import RequestStatus, Step
from cellkeeper_service.domain.meter import Meter
from cellkeeper_service.domain.record import SessionKey
from cellkeeper_service.errors import Reason, Rejection

from . import made

LATE = "the server's queue is full: the request would probably miss its deadline"
A_SECOND = 1.0


def control(limits: Limits | None = None) -> Control:
    return Control({"m": made.models()}, limits or Limits())


def request(deadline: float) -> Step:
    step = made.step([1])
    step.deadline = deadline
    return step


def enter(to: Control, count: int, now: float, deadline: float = 1e9, queued: int = 0) -> list[Step]:
    """Submits this many requests and checks that all are admitted."""
    steps = [request(deadline) for _ in range(count)]
    for step in steps:
        assert to.enter(step, queued, now) is None
    return steps


def finish(of: Control, steps: Iterable[Step], now: float) -> None:
    for step in steps:
        of.leave(step, "a result", now)


def at_work(
    per_second: float, seconds: float = 1.0, to: Control | None = None, start: float = 0.0, waiting: int = 2
) -> Control:
    """Returns a control that was never idle for `seconds` and finished `per_second` requests in each of them."""
    to = to or control()
    waits = enter(to, waiting, start)
    for number in range(round(per_second * seconds)):
        now = start + (number + 1) / per_second
        finish(to, [waits.pop(0)], now)
        waits += enter(to, 1, now)
    return to


def fill(to: Control, unanswered: int, now: float) -> None:
    """Adds requests until this many are unanswered."""
    enter(to, unanswered - to.unanswered, now)


def text(refused: Rejection | None) -> str:
    return "" if refused is None else refused.message


def test_nothing_is_refused_before_anything_was_measured() -> None:
    fresh = control()
    enter(fresh, 1_000, now=0.0, deadline=0.001)
    assert fresh.refuse(0.001, now=0.0) is None


def test_half_of_the_time_is_for_waiting() -> None:
    busy = at_work(1000)
    fill(busy, 490, now=1.0)
    assert busy.enter(request(2.0), 0, now=1.0) is None
    fill(busy, 510, now=1.0)
    assert text(busy.enter(request(2.0), 0, now=1.0)) == LATE
    assert busy.enter(request(3.0), 0, now=1.0) is None


def test_what_is_asked_about_before_it_is_read_is_judged_as_what_comes() -> None:
    busy = at_work(1000)
    fill(busy, 490, now=1.0)
    assert busy.refuse(2.0, now=1.0) is None
    fill(busy, 510, now=1.0)
    refused = busy.refuse(2.0, now=1.0)
    assert refused is not None
    assert (refused.reason, refused.message, refused.retry_delay_ms) == (Reason.QUEUE_FULL, LATE, 200)
    assert busy.refuse(3.0, now=1.0) is None


def test_asking_counts_no_request() -> None:
    busy = at_work(1000)
    fill(busy, 510, now=1.0)
    before = (busy.unanswered, busy.unanswered_bytes, busy.arrivals)
    busy.refuse(2.0, now=1.0)
    busy.refuse(9.0, now=1.0)
    assert (busy.unanswered, busy.unanswered_bytes, busy.arrivals) == before


def test_a_short_queue_is_always_open() -> None:
    slow = at_work(1)
    fill(slow, FREE_REQUESTS - 1, now=1.0)
    assert slow.refuse(1.001, now=1.0) is None
    assert slow.enter(request(1.001), 0, now=1.0) is None
    assert text(slow.refuse(1.001, now=1.0)) == LATE
    assert text(slow.enter(request(1.001), 0, now=1.0)) == LATE


def test_a_queue_as_long_as_when_the_rate_was_measured_is_not_short() -> None:
    """A model that takes a millisecond a step makes 200 requests wait longer than half of their deadline."""
    slow = at_work(1000, waiting=200)
    fill(slow, 199, now=1.0)
    assert slow.enter(request(1.5), 0, now=1.0) is None
    assert text(slow.enter(request(1.3), 0, now=1.0)) == LATE
    assert text(slow.refuse(1.3, now=1.0)) == LATE


def test_a_rate_measured_with_few_says_nothing_of_many() -> None:
    """One caller in a closed loop measures one step for each tick; a tick takes a whole batch."""
    alone = at_work(100, waiting=2)
    enter(alone, FREE_REQUESTS - alone.unanswered, now=1.0, deadline=1.1)
    assert text(alone.enter(request(1.1), 0, now=1.0)) == LATE


def test_a_few_may_wait_whatever_was_measured() -> None:
    stalled = at_work(20, waiting=20)
    enter(stalled, FEW_REQUESTS - stalled.unanswered, now=1.0, deadline=1.001)
    assert text(stalled.enter(request(1.001), 0, now=1.0)) == LATE


def test_a_deadline_that_has_passed_is_refused_unread() -> None:
    assert text(control().refuse(5.0, now=5.0)) == LATE


def test_the_bounds_come_before_the_deadline_and_the_servers_before_the_sessions() -> None:
    bounds = Limits(max_requests=300, max_request_bytes=10**9, max_session_requests=3)
    busy = at_work(1, to=control(bounds))
    fill(busy, 299, now=1.0)
    assert text(busy.enter(request(1.001), 3, now=1.0)) == "this session's queue is full (3 requests unanswered)"
    fill(busy, 300, now=1.0)
    assert text(busy.enter(request(1.001), 3, now=1.0)) == "the server's queue is full (300 requests unanswered)"


def test_bytes_are_bounded_until_the_requests_leave() -> None:
    one = made.step([1])
    narrow = control(Limits(max_request_bytes=2 * len(one.data)))
    held = enter(narrow, 2, now=0.0)
    refused = request(1e9)
    why = narrow.enter(refused, 0, now=0.0)
    assert text(why) == f"the server's queue is full ({2 * len(one.data)} bytes of requests unanswered)"
    finish(narrow, held, now=0.0)
    assert (narrow.unanswered, narrow.unanswered_bytes) == (0, 0)
    enter(narrow, 2, now=0.0)


def test_idle_time_is_no_slowness() -> None:
    rested = at_work(1000)
    finish(rested, [request(1e9), request(1e9)], now=1.0)
    before = rested.requests_per_second
    assert rested.unanswered == 0
    for now in (100.0, 200.0, 300.0):
        finish(rested, enter(rested, 1, now), now + 0.001)
    assert rested.requests_per_second == before


def test_calls_that_come_now_and_then_say_nothing_of_what_can_be_done() -> None:
    """Before each is admitted, `refuse` is asked, after an idle time. Then many come at once."""
    rested = at_work(1000)
    finish(rested, [request(1e9), request(1e9)], now=1.0)
    before = rested.requests_per_second
    for ten in range(1, 10):
        now = 10.0 * ten
        assert rested.refuse(now + A_SECOND, now) is None
        finish(rested, enter(rested, 1, now, deadline=now + A_SECOND), now + 0.001)
    assert rested.requests_per_second == before
    enter(rested, 400, now=100.0, deadline=100.0 + A_SECOND)


def test_what_is_finished_together_is_counted_together() -> None:
    """One commit answers a batch of a thousand new sessions, a third of a second after it arrived."""
    busy, now = control(), 0.0
    for _ in range(3):
        steps = enter(busy, 1024, now)
        now += 0.33
        finish(busy, steps, now)
        assert busy.refuse(now + 30.0, now) is None
    enter(busy, 1, now)
    assert 3000 < busy.requests_per_second < 3200


def test_a_server_that_stands_still_is_noticed_and_one_that_goes_on_at_once() -> None:
    busy = at_work(1000)
    for turn in range(1, 41):
        enter(busy, 1, now=1.0 + turn * RATE_WINDOW_SECONDS)
    assert busy.requests_per_second < 1
    assert at_work(1000, to=busy, start=20.0).requests_per_second > 900


def test_one_that_stands_still_is_noticed_by_asking_alone() -> None:
    busy = at_work(1000)
    fill(busy, 400, now=1.0)
    assert busy.refuse(3.0, now=1.0) is None
    for quarter in range(4, 41):
        now = quarter / 4
        refused = busy.refuse(now + 2.0, now)
    assert text(refused) == LATE


def test_a_pause_of_less_than_a_second_is_no_standstill() -> None:
    """Nothing is finished between two commits, and then everything that they finish comes at once."""
    busy = at_work(1000)
    before = busy.requests_per_second
    enter(busy, 400, now=1.9)
    assert busy.requests_per_second == before
    enter(busy, 1, now=2.0)
    assert busy.requests_per_second == before / 2


def rate_with(result: object) -> float:
    """Returns the measured rate if 100 requests a second finish and another 100 a second end with `result`."""
    busy = control()
    enter(busy, 1, now=0.0)
    for number in range(100):
        one, other = enter(busy, 2, now=number / 100)
        finish(busy, [one], now=number / 100)
        busy.leave(other, result, now=number / 100)
    return busy.requests_per_second


@pytest.mark.parametrize("why", [Reason.QUEUE_FULL, Reason.DEADLINE_PASSED, Reason.CALLER_GONE])
def test_dropping_is_no_measure_of_what_can_be_done(why: Reason) -> None:
    assert rate_with(Rejection(why, "dropped")) == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("result", ["a result", Rejection(Reason.COMMIT_CONFLICT, "lost")])
def test_what_took_work_is_finished_whatever_its_result(result: object) -> None:
    assert rate_with(result) == pytest.approx(200, rel=0.1)


def test_what_leaves_to_enter_again_is_not_finished() -> None:
    busy = control()
    first, *_ = enter(busy, 2, now=0.0)
    busy.release(first)
    assert busy.unanswered == 1
    finish(busy, enter(busy, 1, now=0.0), now=1.0)
    enter(busy, 1, now=1.0)
    assert busy.requests_per_second == 1.0


# the shortest latency


def served(within: float, now: float, of: Control) -> bool:
    """Returns True if a call with so many seconds left is admitted."""
    return of.refuse(now + within, now) is None


def test_nothing_is_known_before_the_first_answer() -> None:
    assert served(1e-6, now=5.0, of=control())


def test_the_fastest_of_two_windows_counts() -> None:
    calls = control()
    calls.answered(0.8, now=1.0)
    calls.answered(0.8, now=1.1)
    assert (served(0.19, 1.2, calls), served(0.21, 1.2, calls)) == (False, True)
    turned = 1.0 + LATENCY_WINDOW_SECONDS
    calls.answered(turned - 0.4, now=turned)
    assert (served(0.19, turned, calls), served(0.21, turned, calls)) == (False, True)
    turned += LATENCY_WINDOW_SECONDS
    assert (served(0.39, turned, calls), served(0.41, turned, calls)) == (False, True)


def test_what_was_slow_is_tried_again() -> None:
    calls = control()
    calls.answered(0.0, now=10.0)
    assert not served(9.0, now=10.1, of=calls)
    assert served(1e-6, now=10.0 + 2 * LATENCY_WINDOW_SECONDS, of=calls)


def test_the_latency_counts_as_gone_where_the_place_in_the_queue_is_judged() -> None:
    busy = at_work(1000)
    fill(busy, 450, now=1.0)
    assert served(1.0, now=1.0, of=busy)
    busy.answered(0.8, now=1.0)
    assert not served(1.0, now=1.0, of=busy)
    assert served(1.2, now=1.0, of=busy)


# the core's use of it


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
