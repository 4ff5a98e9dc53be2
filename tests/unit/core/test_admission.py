"""Admission control: a request that would miss its deadline is refused on arrival, not when it is too late."""

from __future__ import annotations

import tracemalloc

from cellkeeper_service.core.admission import FEW_REQUESTS, FREE_REQUESTS
from cellkeeper_service.core.limits import Limits
from cellkeeper_service.errors import Reason

from . import made
from .admission import LATE, at_work, control, enter, fill, finish, request, text


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


def test_requests_for_ever_other_outputs_do_not_fill_the_memory() -> None:
    to = control()
    tracemalloc.start()
    try:
        for number in range(20_000):
            step = request(1e9)
            step.wanted = frozenset([f"output {number}"])
            assert to.enter(step, 0, float(number)) is None
            finish(to, [step], float(number))
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 2 << 20
