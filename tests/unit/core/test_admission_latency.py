"""Admission control: the shortest latency of late."""

from __future__ import annotations

from cellkeeper_service.core.admission import LATENCY_WINDOW_SECONDS
from cellkeeper_service.core.admission import AdmissionControl as Control

from .admission import at_work, control, fill


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
