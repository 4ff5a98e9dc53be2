"""What tells the loop that it is overloaded: how much of it ticks take, and how long the quickest call took."""

from __future__ import annotations

from cellkeeper_service.scheduler import quickest, strain
from cellkeeper_service.scheduler.quickest import Quickest
from cellkeeper_service.scheduler.strain import Strain


def test_ticks_without_rest_are_a_strain_and_rest_ends_it() -> None:
    loop = Strain()
    assert not loop.high
    loop.worked(strain.WINDOW_SECONDS)
    assert loop.high
    loop.rested(2 * strain.WINDOW_SECONDS)
    assert not loop.high


def test_short_work_between_long_rests_is_no_strain() -> None:
    loop = Strain()
    for _ in range(100):
        loop.worked(0.0001)
        loop.rested(0.001)
    assert not loop.high


def test_nothing_is_known_before_the_first_answer() -> None:
    assert Quickest().seconds(now=5.0) == 0.0


def test_the_quickest_of_two_windows_counts() -> None:
    calls = Quickest()
    calls.took(0.2, now=1.0)
    calls.took(0.3, now=1.1)
    assert calls.seconds(now=1.2) == 0.2
    calls.took(0.4, now=1.0 + quickest.WINDOW_SECONDS)
    assert calls.seconds(now=1.0 + quickest.WINDOW_SECONDS) == 0.2
    assert calls.seconds(now=1.0 + 2 * quickest.WINDOW_SECONDS) == 0.4


def test_what_was_slow_is_tried_again() -> None:
    calls = Quickest()
    calls.took(10.0, now=1.0)
    assert calls.seconds(now=1.0 + 2 * quickest.WINDOW_SECONDS) == 0.0
