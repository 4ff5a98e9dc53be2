"""Admission control: what counts into the rate at which requests are finished."""

from __future__ import annotations

import pytest
from cellkeeper_service.core.admission import RATE_WINDOW_SECONDS
from cellkeeper_service.errors import Reason, Rejection

from .admission import LATE, at_work, control, enter, fill, finish, request, text

A_SECOND = 1.0


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
