"""Which callers are expected to return."""

from __future__ import annotations

from cellkeeper_service.core import callers
from cellkeeper_service.core.callers import Callers
from cellkeeper_service.core.requests import GetSession
from cellkeeper_service.domain.record import SessionKey

SOON = callers.RETURN_SECONDS / 2
LATER = callers.RETURN_SECONDS * 2


def key(number: int) -> SessionKey:
    return SessionKey("", "model", f"session {number}")


def replies(*numbers: int) -> list[GetSession]:
    return [GetSession(key(number), 0.0, lambda requests: None) for number in numbers]


def round_trips(told: Callers, count: int, now: float, pause: float) -> float:
    """One caller sends requests in turn, `pause` seconds after each reply. Returns the time of its last reply."""
    for _ in range(count):
        now += pause
        told.forget(now)
        told.came(key(0))
        told.answered(replies(0), now)
    return now


def test_nobody_is_away_before_the_first_reply() -> None:
    told = Callers()
    told.came(key(1))
    assert told.away == 0
    assert not told.return_soon


def test_who_has_a_reply_is_away_until_the_next_request() -> None:
    told = Callers()
    for number in (1, 2, 3):
        told.came(key(number))
    told.answered(replies(1, 2), 0.0)
    assert told.away == 2
    told.came(key(1))
    assert told.away == 1


def test_who_stays_away_for_long_is_no_longer_expected() -> None:
    told = Callers()
    told.came(key(1))
    told.came(key(2))
    told.answered(replies(1), 0.0)
    told.answered(replies(2), SOON)
    told.forget(callers.RETURN_SECONDS + SOON / 2)
    assert told.away == 1
    told.forget(callers.RETURN_SECONDS + 2 * SOON)
    assert told.away == 0


def test_replies_alone_forget_those_that_left() -> None:
    """Memory stays bounded even if the loop never calls `forget`."""
    told = Callers()
    for number in range(1000):
        told.came(key(number))
        told.answered(replies(number), number * LATER)
    assert told.away == 1


def test_the_items_of_frames_are_no_callers() -> None:
    told = Callers()
    told.came(key(1))
    told.answered(replies(2, 3), 0.0)
    assert told.away == 0


def test_two_requests_of_one_session_are_one_caller() -> None:
    told = Callers()
    told.came(key(1))
    told.came(key(1))
    told.answered(replies(1, 1), 0.0)
    assert told.away == 1


def test_the_latest_reply_counts_where_a_session_has_several() -> None:
    told = Callers()
    told.came(key(1))
    told.answered(replies(1), 0.0)
    told.came(key(1))
    told.came(key(2))
    told.answered(replies(2), SOON)
    told.answered(replies(1), 1.5 * SOON)
    told.forget(callers.RETURN_SECONDS + 1.2 * SOON)
    assert told.away == 1
    told.came(key(1))
    assert told.away == 0


def test_callers_that_return_are_expected_and_callers_that_leave_are_not() -> None:
    told = Callers()
    now = round_trips(told, 100, 0.0, SOON)
    assert told.return_soon
    round_trips(told, 100, now, LATER)
    assert not told.return_soon


def test_one_slow_caller_changes_nothing() -> None:
    told = Callers()
    now = round_trips(told, 100, 0.0, SOON)
    round_trips(told, 1, now, LATER)
    assert told.return_soon
