"""The timer of a sender, for the deadlines of all its calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cellkeeper._session.sender import NEVER, Sender


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


class Waiting(Sender):
    """Its calls wait until these times."""

    def __init__(self, loop: Any, *calls: float) -> None:
        super().__init__(loop)
        self.calls = list(calls)
        self.expired: list[float] = []
        self.asked = 0
        for call in calls:
            self.expire_at(call)

    def expire(self, now: float) -> float:
        self.asked += 1
        self.expired += [call for call in self.calls if call <= now]
        self.calls = [call for call in self.calls if call > now]
        return min(self.calls, default=NEVER)


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_each_call_expires_at_its_deadline(loop: Loop) -> None:
    first, second = Waiting(loop, 103.0, 101.0), Waiting(loop, 102.0)
    loop.advance(101.5)
    assert (first.expired, second.expired) == ([101.0], [])
    loop.advance(102.0)
    assert (first.expired, second.expired) == ([101.0], [102.0])
    loop.advance(103.0)
    assert first.expired == [101.0, 103.0]
    assert loop.timers == []


def test_a_sender_has_one_timer(loop: Loop) -> None:
    sender = Waiting(loop)
    for number in range(100):
        sender.expire_at(101.0 + number % 7)
        sender.expire_at(101.0 - number / 1000)
        assert len(loop.timers) == 1


def test_a_sender_is_asked_only_when_its_own_deadline_passes(loop: Loop) -> None:
    """Not when those of others do: many that time out one after another would cost the square of their number."""
    senders = [Waiting(loop, 101.0 + number / 1000) for number in range(1000)]
    loop.advance(103.0)
    assert [sender.asked for sender in senders] == [1] * 1000
    assert [len(sender.expired) for sender in senders] == [1] * 1000


def test_calls_that_were_answered_cost_one_look_at_the_sender(loop: Loop) -> None:
    sender = Waiting(loop)
    for number in range(1000):
        sender.calls = [110.0 + number / 1000]  # the one before was answered
        sender.expire_at(sender.calls[0])
    loop.advance(110.0)
    assert (sender.asked, sender.expired) == (1, [])
    loop.advance(111.0)
    assert sender.expired == [110.999]


def test_an_earlier_deadline_of_a_later_call_counts(loop: Loop) -> None:
    sender = Waiting(loop, 130.0, 110.0, 120.0)
    loop.advance(110.0)
    assert sender.expired == [110.0]
    loop.advance(130.0)
    assert sender.expired == [110.0, 120.0, 130.0]


def test_one_that_has_ended_is_not_asked(loop: Loop) -> None:
    gone, stays = Waiting(loop, 101.0), Waiting(loop, 102.0)
    gone.expire_never()
    gone.expire_never()
    loop.advance(103.0)
    assert (gone.asked, stays.expired) == (0, [102.0])


def test_one_that_has_ended_is_not_kept_until_its_deadline(loop: Loop) -> None:
    """Programs make short-lived sessions all the time."""
    stays = Waiting(loop, 200.0)
    for _ in range(10_000):
        Waiting(loop, 150.0).expire_never()
    assert len(loop.timers) == 1
    assert stays.next_deadline == 200.0


def test_one_that_goes_on_expires_once(loop: Loop) -> None:
    sender = Waiting(loop, 101.0)
    sender.expire_never()
    sender.expire_at(101.0)
    loop.advance(102.0)
    assert (sender.asked, sender.expired) == (1, [101.0])


def test_one_that_fails_does_not_stop_the_others(loop: Loop) -> None:
    class Failing(Waiting):
        def expire(self, now: float) -> float:
            raise RuntimeError("it failed")

    Failing(loop, 101.0)
    other = Waiting(loop, 102.0)
    with pytest.raises(RuntimeError, match="it failed"):
        loop.advance(101.0)
    loop.advance(102.0)
    assert other.expired == [102.0]


def test_real_time_passes() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        class Ending(Waiting):
            def expire(self, now: float) -> float:
                ended.set_result(now)
                return NEVER

        deadline = loop.time() + 0.01
        Ending(loop, deadline)
        assert await ended >= deadline

    asyncio.run(main())
