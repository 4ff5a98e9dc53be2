"""What share of the loop's time ticks take, and which callers it waits for between two ticks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from cellkeeper_service.core import loop_share
from cellkeeper_service.core.attempts import FAILURES, SKIPS
from cellkeeper_service.core.loop_share import LoopShare
from cellkeeper_service.core.requests import GetSession
from cellkeeper_service.domain.record import SessionKey

TIMEOUT_S = 10.0
LONG_SECONDS = 30.0
"""Waiting this long would fail the test by its timeout."""


def key(number: int) -> SessionKey:
    return SessionKey("", "model", f"session {number}")


def arrive(share: LoopShare, *numbers: int) -> None:
    for number in numbers:
        share.call_came()
        share.submitted(key(number))


def reply(share: LoopShare, *numbers: int) -> None:
    share.answered([GetSession(key(number), 0.0, lambda requests: None) for number in numbers])


def busy(monotonic: Callable[[], float] = time.monotonic) -> LoopShare:
    """Returns a share whose ticks take all the time."""
    share = LoopShare(monotonic)
    share.turned(loop_share.WINDOW_SECONDS)
    return share


def closed_loop(share: LoopShare, callers: int) -> None:
    """So many callers have returned again and again, and are now waiting for a reply."""
    numbers = range(callers)
    for _ in range(100):
        arrive(share, *numbers)
        reply(share, *numbers)
    arrive(share, *numbers)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), TIMEOUT_S))


async def rests(share: LoopShare, unanswered: int = 0, tick: float = 0.0) -> bool:
    """Returns True if `let_in` waits: only then does the event loop run others meanwhile."""
    others = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(others.set_result, None)
    await share.let_in(tick, unanswered)
    return others.done()


async def ends_when_back(share: LoopShare, callers: int, unanswered: int) -> None:
    """Waits, lets callers return one by one, and asserts that the wait ends with the last of them."""
    waiting = asyncio.ensure_future(share.let_in(0.0, unanswered))
    for number in range(callers):
        await asyncio.sleep(0)
        assert not waiting.done(), f"{number} are back"
        arrive(share, number)
    await waiting


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait ends by timing out."""
    monkeypatch.setattr(loop_share, "QUIET_SECONDS", LONG_SECONDS)
    monkeypatch.setattr(loop_share, "LONGEST_SECONDS", LONG_SECONDS)
    monkeypatch.setattr("cellkeeper_service.core.callers.RETURN_SECONDS", LONG_SECONDS)


def test_ticks_without_a_rest_take_a_high_share_and_a_rest_ends_it() -> None:
    share = LoopShare()
    assert not share.is_high
    share.turned(loop_share.WINDOW_SECONDS)
    assert share.is_high
    share.turned(0.0, 2 * loop_share.WINDOW_SECONDS)
    assert not share.is_high


def test_short_ticks_between_long_rests_take_a_low_share() -> None:
    share = LoopShare()
    for _ in range(100):
        share.turned(0.0001, 0.001)
    assert not share.is_high


def test_nobody_is_waited_for_where_ticks_leave_the_loop_enough_time() -> None:
    async def test() -> None:
        share = LoopShare()
        arrive(share, 1, 2)
        assert not await rests(share)
        share.turned(loop_share.WINDOW_SECONDS)
        arrive(share, 1, 2)
        assert await rests(share)

    run(test)


def test_nobody_is_waited_for_where_no_call_came() -> None:
    async def test() -> None:
        share = busy()
        assert not await rests(share)
        arrive(share, 1, 2)
        assert await rests(share)
        assert not await rests(share)

    run(test)


def test_the_wait_for_strangers_ends_when_no_call_comes_any_more() -> None:
    """Each call arrives after a few turns of the event loop."""

    async def test() -> None:
        share, arrived = busy(), 0

        async def call(turns: int) -> None:
            nonlocal arrived
            for _ in range(turns):
                await asyncio.sleep(0)
            share.call_came()
            arrived += 1

        arrive(share, 1, 2)
        calls = [asyncio.ensure_future(call(turns)) for turns in (1, 4, 8, 16)]
        await share.let_in(0.0, 2)
        assert arrived == len(calls)

    run(test)


@pytest.mark.usefixtures("patient")
def test_the_wait_ends_when_most_callers_are_back() -> None:
    """Of ten callers, two are waiting for a reply all along, and six may be away."""

    async def test() -> None:
        share = busy()
        closed_loop(share, 10)
        reply(share, *range(8))
        await ends_when_back(share, 2, unanswered=2)

    run(test)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("unanswered", [0, 24])
def test_the_wait_ends_when_as_many_wait_as_a_stream_hands_over(unanswered: int) -> None:
    """unanswered: requests that were waiting before."""

    async def test() -> None:
        share, callers = busy(), 4 * loop_share.ENOUGH_REQUESTS
        closed_loop(share, callers)
        reply(share, *range(callers - unanswered))
        await ends_when_back(share, loop_share.ENOUGH_REQUESTS - unanswered, unanswered)

    run(test)


@pytest.mark.usefixtures("patient")
def test_nobody_is_waited_for_while_few_callers_are_away() -> None:
    async def test() -> None:
        share = busy()
        closed_loop(share, 10)
        reply(share, 1, 2, 3)
        assert not await rests(share, unanswered=7)

    run(test)


@pytest.mark.usefixtures("patient")
def test_requests_in_frames_do_not_wait_for_a_few_callers() -> None:
    async def test() -> None:
        share = busy()
        closed_loop(share, 4)
        reply(share, *range(4))
        assert not await rests(share, unanswered=256)

    run(test)


def test_the_wait_for_callers_ends_where_they_do_not_return() -> None:
    """The wait ends after the quiet time, long before the callers are forgotten."""

    async def test() -> None:
        now = 100.0
        share = busy(lambda: now)
        closed_loop(share, 10)
        reply(share, *range(10))
        await share.let_in(LONG_SECONDS, 0)

    run(test)


def test_it_ends_while_calls_still_come() -> None:
    async def test() -> None:
        now = 100.0

        def monotonic() -> float:
            return now

        share = busy(monotonic)
        begin, tick = now, 5 * loop_share.LONGEST_SECONDS

        async def calls() -> None:
            nonlocal now
            while True:
                share.call_came()
                now += 0.001
                await asyncio.sleep(0)

        coming = asyncio.ensure_future(calls())
        for took, longest in ((0.0, loop_share.LONGEST_SECONDS), (tick, loop_share.LONGEST_TICKS * tick)):
            arrive(share, 1, 2)
            begin = now
            await share.let_in(took, 2)
            assert now - begin >= longest
        coming.cancel()

    run(test)


def test_who_is_alone_is_not_kept_waiting_and_company_is_noticed() -> None:
    async def test() -> None:
        share = busy()

        async def waits(*numbers: int) -> bool:
            for _ in numbers:
                share.call_came()
            return await rests(share)

        assert all([await waits(1) for _ in range(FAILURES)])
        assert not any([await waits(1) for _ in range(SKIPS)])
        assert await waits(1), "it is never tried again"
        assert all([await waits(1) for _ in range(FAILURES - 1)])
        assert await waits(1, 2), "two are kept apart"

    run(test)


def test_who_has_company_once_is_not_taken_to_be_alone() -> None:
    """The next call arrives during the wait for the first."""

    async def test() -> None:
        share = busy()
        for _ in range(FAILURES - 1):
            share.call_came()
            await share.let_in(0.0, 1)
        share.call_came()
        asyncio.get_running_loop().call_soon(share.call_came)
        await share.let_in(0.0, 1)
        for _ in range(FAILURES):
            share.call_came()
            assert await rests(share)
        share.call_came()
        assert not await rests(share)

    run(test)


def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    async def test() -> None:
        share = busy()
        arrive(share, 1, 2)
        waiting = asyncio.ensure_future(share.let_in(0.0, 2))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        arrive(share, 3)
        assert await rests(share)

    run(test)
