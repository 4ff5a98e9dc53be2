"""Admission: what would miss its deadline is refused when it comes, and not when it is too late."""

from __future__ import annotations

from cellkeeper_service.sessions.pace import FREE_REQUESTS, WINDOW_SECONDS, Pace


def at_work(requests_per_second: float, seconds: float = 1.0, pace: Pace | None = None, start: float = 0.0) -> Pace:
    """After so many seconds with a queue that was never empty."""
    pace = pace or Pace()
    pace.entered(start, 1)
    count = round(requests_per_second * seconds)
    for number in range(count):
        pace.finished(start + (number + 1) / requests_per_second)
        pace.entered(start + (number + 1) / requests_per_second, 2)
    return pace


def test_nothing_is_refused_before_anything_was_measured() -> None:
    assert not Pace().too_late(100_000, now=0.0, deadline=0.001)


def test_half_of_the_time_is_for_waiting() -> None:
    pace = at_work(1000)
    assert not pace.too_late(490, now=1.0, deadline=2.0)
    assert pace.too_late(510, now=1.0, deadline=2.0)
    assert not pace.too_late(510, now=1.0, deadline=3.0)


def test_a_short_queue_is_always_open() -> None:
    pace = at_work(1)
    assert not pace.too_late(FREE_REQUESTS, now=1.0, deadline=1.001)
    assert pace.too_late(FREE_REQUESTS + 1, now=1.0, deadline=1.001)


def test_idle_time_is_no_slowness() -> None:
    pace = at_work(1000)
    before = pace.requests_per_second
    pace.entered(100.0, 1)
    pace.finished(100.001)
    pace.entered(200.0, 1)
    assert pace.requests_per_second == before


def test_calls_that_come_now_and_then_say_nothing_of_what_can_be_done() -> None:
    """Each is asked for before it is taken, after a time in which there was nothing to do; then many come at once."""
    pace = at_work(1000)
    before = pace.requests_per_second
    pace.finished(1.0)
    for now in range(10, 100, 10):
        assert not pace.too_late(1, float(now), now + 1.0)
        pace.entered(float(now), 1)
        pace.finished(now + 0.001)
    assert pace.requests_per_second == before
    for waiting in range(1, 401):
        pace.entered(100.0, waiting)
        assert not pace.too_late(waiting, 100.0, 101.0)


def test_what_is_finished_together_is_counted_together() -> None:
    """A batch of a thousand new sessions is answered by one commit, a third of a second after it came."""
    pace, now = Pace(), 0.0
    for _ in range(3):
        for waiting in range(1024):
            pace.entered(now, waiting + 1)
        now += 0.33
        for _ in range(1024):
            pace.finished(now)
        assert not pace.too_late(1025, now, now + 30.0)
    assert 3000 < pace.requests_per_second < 3200


def test_a_server_that_stands_still_is_noticed_and_one_that_goes_on_at_once() -> None:
    pace = at_work(1000)
    for turn in range(1, 41):
        pace.entered(1.0 + turn * WINDOW_SECONDS, 1000)
    assert pace.requests_per_second < 1
    assert at_work(1000, pace=pace, start=20.0).requests_per_second > 900
