"""One timer for many deadlines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cellkeeper._session.deadlines import NEVER, Deadlines


class Loop:
    """An event loop whose time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> Timer:
        self.timers.append(timer := Timer(self, when, callback))
        return timer

    def advance(self, now: float) -> int:
        """Returns how many timers fired on the way."""
        fired = 0
        while due := [timer for timer in self.timers if timer.when <= now]:
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            self.now = max(self.now, first.when)
            first.callback()
            fired += 1
            assert fired < 10_000, "it does not end"
        self.now = now
        return fired


class Timer:
    def __init__(self, loop: Loop, when: float, callback: Any) -> None:
        self.loop, self.when, self.callback = loop, when, callback

    def cancel(self) -> None:
        self.loop.timers.remove(self)


class Item:
    """Its calls wait until these times."""

    def __init__(self, *calls: float) -> None:
        self.next_deadline = NEVER
        self.calls = list(calls)
        self.expired: list[float] = []
        self.asked = 0

    def expire(self, now: float) -> float:
        self.asked += 1
        self.expired += [call for call in self.calls if call <= now]
        self.calls = [call for call in self.calls if call > now]
        return min(self.calls, default=NEVER)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def deadlines(loop: Any) -> Deadlines:
    return Deadlines(loop)


def added(deadlines: Deadlines, *calls: float) -> Item:
    item = Item(*calls)
    for call in calls:
        deadlines.add(item, call)
    return item


def test_each_call_expires_at_its_deadline(loop: Loop, deadlines: Deadlines) -> None:
    first, second = added(deadlines, 103.0, 101.0), added(deadlines, 102.0)
    loop.advance(101.5)
    assert (first.expired, second.expired) == ([101.0], [])
    loop.advance(102.0)
    assert (first.expired, second.expired) == ([101.0], [102.0])
    loop.advance(103.0)
    assert first.expired == [101.0, 103.0]
    assert loop.timers == []


def test_there_is_one_timer(loop: Loop, deadlines: Deadlines) -> None:
    for number in range(100):
        added(deadlines, 101.0 + number % 7)
        assert len(loop.timers) == 1


def test_an_item_is_asked_only_when_its_own_deadline_passes(loop: Loop, deadlines: Deadlines) -> None:
    """Not when those of others do: many that time out one after another would cost the square of their number."""
    items = [added(deadlines, 101.0 + number / 1000) for number in range(1000)]
    loop.advance(103.0)
    assert [item.asked for item in items] == [1] * 1000
    assert [len(item.expired) for item in items] == [1] * 1000


def test_calls_that_were_answered_cost_one_look_at_the_item(loop: Loop, deadlines: Deadlines) -> None:
    item = Item()
    for number in range(1000):
        item.calls = [110.0 + number / 1000]  # the one before was answered
        deadlines.add(item, item.calls[0])
    loop.advance(110.0)
    assert (item.asked, item.expired) == (1, [])
    loop.advance(111.0)
    assert item.expired == [110.999]


def test_an_earlier_deadline_of_a_later_call_counts(loop: Loop, deadlines: Deadlines) -> None:
    item = added(deadlines, 130.0, 110.0, 120.0)
    loop.advance(110.0)
    assert item.expired == [110.0]
    loop.advance(130.0)
    assert item.expired == [110.0, 120.0, 130.0]


def test_what_is_removed_is_not_asked(loop: Loop, deadlines: Deadlines) -> None:
    gone, stays = added(deadlines, 101.0), added(deadlines, 102.0)
    deadlines.remove(gone)
    deadlines.remove(gone)
    loop.advance(103.0)
    assert (gone.asked, stays.expired) == (0, [102.0])


def test_what_is_removed_is_not_kept_until_its_deadline(deadlines: Deadlines) -> None:
    """Programs make short-lived sessions all the time."""
    stays = added(deadlines, 200.0)
    for _ in range(10_000):
        deadlines.remove(added(deadlines, 150.0))
    assert len(deadlines._entries) <= 2
    assert stays.next_deadline == 200.0


def test_what_is_added_again_expires_once(loop: Loop, deadlines: Deadlines) -> None:
    item = added(deadlines, 101.0)
    deadlines.remove(item)
    deadlines.add(item, 101.0)
    loop.advance(102.0)
    assert (item.asked, item.expired) == (1, [101.0])


def test_an_item_that_fails_does_not_stop_the_timer(loop: Loop, deadlines: Deadlines) -> None:
    class Failing(Item):
        def expire(self, now: float) -> float:
            raise RuntimeError("it failed")

    failing, other = Failing(101.0), added(deadlines, 102.0)
    deadlines.add(failing, 101.0)
    with pytest.raises(RuntimeError, match="it failed"):
        loop.advance(101.0)
    loop.advance(102.0)
    assert other.expired == [102.0]


def test_a_closed_one_fires_no_more(loop: Loop, deadlines: Deadlines) -> None:
    added(deadlines, 101.0)
    deadlines.close()
    assert loop.timers == []


def test_real_time_passes() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        deadlines, ended = Deadlines(loop), loop.create_future()

        class Ending(Item):
            def expire(self, now: float) -> float:
                ended.set_result(now)
                return NEVER

        deadline = loop.time() + 0.01
        deadlines.add(Ending(), deadline)
        assert await ended >= deadline

    asyncio.run(main())
