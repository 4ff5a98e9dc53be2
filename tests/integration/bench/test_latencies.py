"""What the bench says of latencies: percentiles of all rounds together, of enough messages, without leaving any out."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

from bench import loops
from bench.latencies import GROWTH, LEAST_BEYOND, counted, percentile_ms
from bench.load import Load, Measured
from bench.loops import closed_loop, open_loop


def test_a_percentile_is_that_of_all_rounds_together() -> None:
    """A round that was slow as a whole counts as much as its messages do; the median of the rounds would hide it."""
    rounds = [counted([0.001] * 900), counted([0.001] * 900), counted([0.050] * 200)]
    p50, p95 = percentile_ms(rounds, 50.0), percentile_ms(rounds, 95.0)
    assert p50 is not None
    assert p50 >= 1.0 > p50 / GROWTH  # never too low
    assert p95 == pytest.approx(50.0, rel=GROWTH - 1)


def test_a_percentile_needs_messages_beyond_it() -> None:
    enough = [0.001 * number for number in range(1, 100 * LEAST_BEYOND + 1)]
    found = percentile_ms([counted(enough)], 99.0)
    assert found == pytest.approx(990.0, rel=GROWTH - 1)
    assert percentile_ms([counted(enough[:-1])], 99.0) is None
    assert percentile_ms([], 50.0) is None


class Clock(selectors.DefaultSelector):
    """Has an event loop wait for nothing: its own time passes instead, however busy the machine is."""

    seconds = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.seconds += timeout or 0.0
        return super().select(0)


Play: TypeAlias = Callable[[Coroutine[Any, Any, Measured]], Measured]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the bench's loops."""
    made = Clock()
    monkeypatch.setattr(loops, "time", SimpleNamespace(perf_counter=lambda: made.seconds))
    return made


@pytest.fixture
def play(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """Runs one of the bench's loops."""
    with closing(asyncio.SelectorEventLoop(clock)) as loop:
        monkeypatch.setattr(loop, "time", lambda: clock.seconds)
        yield loop.run_until_complete


class Server:
    """Answers at once, but the message with the number `slow` only after `seconds`."""

    def __init__(self, slow: int, seconds: float) -> None:
        self.messages = 0
        self._slow = slow
        self._seconds = seconds

    async def send(self, flow: int) -> int:
        self.messages += 1
        await asyncio.sleep(self._seconds if self.messages == self._slow else 0.001)
        return 1


def test_an_open_loop_counts_the_answers_that_come_late(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slowest messages are those that it waits for in the end, and all that queued behind them."""
    monkeypatch.setattr(loops, "DRAIN_SECONDS", 0.1)
    server = Server(slow=3, seconds=1.0)
    measured = play(open_loop(server.send, Load("client", "m", flows=1, rate=200.0), 0.2))
    assert measured.messages == server.messages == sum(measured.latencies.values())
    assert measured.late == server.messages - 2
    assert measured.p50_ms > 500.0


def test_a_closed_loop_counts_the_messages_in_flight_at_its_end(
    play: Play, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "WARM_SECONDS", 0.0)
    server = Server(slow=5, seconds=0.5)
    measured = play(closed_loop(server.send, Load("client", "m", flows=1), 0.2))
    assert clock.seconds >= 0.5
    assert measured.messages == server.messages == 5
    assert GROWTH ** max(map(int, measured.latencies)) >= 0.5e6  # microseconds
    assert measured.steps_per_second == 4 / 0.2  # answered in time
