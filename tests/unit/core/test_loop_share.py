"""How much of the loop ticks take, and how calls are accepted between two of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from cellkeeper_service.core import loop_share
from cellkeeper_service.core.loop_share import LoopShare

EMPTY = loop_share.EMPTY_TURN_SECONDS / 2
FULL = loop_share.EMPTY_TURN_SECONDS * 2


class Loop:
    """An event loop whose turns take as long as a test says."""

    def __init__(self, busy: bool = True) -> None:
        self.now = 100.0
        self.share = LoopShare(lambda: self.now)
        if busy:
            self.share.ticked(loop_share.WINDOW_SECONDS)

    def accept(self, calls: int = 1, turn: Callable[[int], float] = lambda number: EMPTY, tick: float = 0.001) -> int:
        """So many calls have come, and the loop lets in what is behind them. turn: seconds of the turn of that number.

        Returns how many turns it had.
        """
        for _ in range(calls):
            self.share.call_came()
        letting, turns = self.share.let_in(tick), 0
        try:
            while True:
                letting.send(None)
                turns += 1
                assert turns < 100_000, "it does not end"
                self.now += turn(turns)
        except StopIteration:
            return turns


def test_ticks_without_a_rest_take_a_high_share_and_a_rest_ends_it() -> None:
    share = LoopShare()
    assert not share.is_high
    share.ticked(loop_share.WINDOW_SECONDS)
    assert share.is_high
    share.idled(2 * loop_share.WINDOW_SECONDS)
    assert not share.is_high


def test_short_ticks_between_long_rests_take_a_low_share() -> None:
    share = LoopShare()
    for _ in range(100):
        share.ticked(0.0001)
        share.idled(0.001)
    assert not share.is_high


def test_nobody_is_waited_for_where_ticks_leave_the_loop_enough_time() -> None:
    loop = Loop(busy=False)
    assert loop.accept() == 0
    loop.share.ticked(loop_share.WINDOW_SECONDS)
    assert loop.accept() > 0


def test_nobody_is_waited_for_where_no_call_came() -> None:
    loop = Loop()
    assert loop.accept(calls=0) == 0
    assert loop.accept(calls=1) > 0
    assert loop.accept(calls=0) == 0


def test_calls_on_their_way_are_let_in() -> None:
    """Each needs several turns, with shorter ones between them."""
    loop, last = Loop(), 40

    def turn(number: int) -> float:
        return FULL if number % 5 == 0 and number <= last else EMPTY

    quiet_turns = loop_share.QUIET_SECONDS / EMPTY
    assert loop.accept(turn=turn, tick=10.0) == pytest.approx(last + quiet_turns, abs=1)


def test_the_loops_other_tasks_have_their_turns() -> None:
    async def test() -> None:
        loop, arrived = Loop(), 0

        async def call(turns: int) -> None:
            nonlocal arrived
            for _ in range(turns):
                loop.now += FULL
                await asyncio.sleep(0)
            arrived += 1

        async def clock() -> None:
            while True:
                loop.now += EMPTY
                await asyncio.sleep(0)

        loop.share.call_came()
        ticking = asyncio.ensure_future(clock())
        calls = [asyncio.ensure_future(call(turns)) for turns in (1, 4, 8)]
        await loop.share.let_in(1.0)
        assert arrived == len(calls)
        ticking.cancel()

    asyncio.run(test())


def test_it_ends_while_calls_still_come() -> None:
    loop = Loop()
    begin = loop.now

    def turn(number: int) -> float:
        loop.share.call_came()
        return FULL

    loop.accept(turn=turn)
    assert loop.now - begin == pytest.approx(loop_share.LONGEST_SECONDS, abs=2 * FULL)


def test_after_a_long_tick_it_takes_as_much_longer() -> None:
    loop = Loop()
    begin, tick = loop.now, 5 * loop_share.LONGEST_SECONDS
    loop.accept(turn=lambda number: FULL, tick=tick)
    assert loop.now - begin == pytest.approx(loop_share.LONGEST_TICKS * tick, abs=2 * FULL)


def test_who_is_alone_is_not_kept_waiting_and_company_is_noticed() -> None:
    loop = Loop()
    assert all(loop.accept() for _ in range(loop_share.TRIES))
    assert not any(loop.accept() for _ in range(loop_share.SKIPS))
    assert loop.accept(), "it is never tried again"
    assert all(loop.accept() for _ in range(loop_share.TRIES - 1))
    assert loop.accept(calls=2), "two are kept apart"


def test_who_has_company_once_is_not_taken_to_be_alone() -> None:
    """The next call comes while the first is let in."""
    loop = Loop()

    def turn(number: int) -> float:
        if number == 1:
            loop.share.call_came()
        return EMPTY

    for _ in range(loop_share.TRIES - 1):
        loop.accept()
    loop.accept(turn=turn)
    loop.accept()
    assert all(loop.accept() for _ in range(loop_share.TRIES - 1))
    assert not loop.accept()
