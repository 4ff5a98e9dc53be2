"""The load of the overload test, in a process of its own, so that it does not wait for what it measures.

    python -m verification.load.pressure TARGET '{"items": 64, ...}'

Prints one line of JSON with the results of each phase.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .calls import Answer, Calls, Plan, RawCalls
from .official_calls import OfficialCalls

TURN_S = 0.005  # an open loop sends what has become due in this time
MOST_BEHIND_S = 0.05
"""What became due while the generator itself was behind for longer is never sent: all of it at once would be a load
that no clients make, and would keep the generator behind."""
PROBE_SHARE = 0.2  # of the capacity


@dataclass
class Phase:
    """One phase, counted in steps. *_ms: [median, 99 %, maximum] from sending to the answer."""

    seconds: float = 0.0
    sent: int = 0
    good: int = 0
    refused: int = 0
    advised: int = 0  # those refused with a retry delay
    at_client: int = 0  # refused by the client's own transport: the server never saw them
    late: int = 0
    other: dict[str, int] = field(default_factory=dict)
    good_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    slowest_turn_ms: float = 0.0  # by how much the generator itself was behind


class Pressure:
    def __init__(self, calls: Calls, plan: Plan) -> None:
        self._calls = calls
        self._plan = plan
        self._answers: list[Answer] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def closed(self, seconds: float) -> Phase:
        """Keeps `flows` calls in flight at any time, which shows the server's capacity."""
        self._answers = []
        started = time.perf_counter()

        async def flow() -> None:
            while time.perf_counter() < started + seconds:
                await self._send(30.0)

        await asyncio.gather(*(flow() for _ in range(self._plan.flows)))
        return self._phase(time.perf_counter() - started)

    async def open(self, steps_per_second: float, seconds: float) -> Phase:
        """Sends at that rate whatever comes back, as far as this process keeps up; then waits for the answers."""
        self._answers = []
        started = time.perf_counter()
        sent, slowest = 0, 0.0
        most = max(1, int(MOST_BEHIND_S * steps_per_second / self._plan.items))
        while (now := time.perf_counter() - started) < seconds:
            due = int(now * steps_per_second / self._plan.items) - sent
            for _ in range(min(due, most)):
                task = asyncio.create_task(self._send(self._plan.deadline_s))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            sent += due
            await asyncio.sleep(TURN_S)
            slowest = max(slowest, time.perf_counter() - started - now - TURN_S)
        measured = time.perf_counter() - started
        while self._under_way:
            await asyncio.wait(self._under_way)
        phase = self._phase(measured)
        phase.slowest_turn_ms = 1000 * slowest
        return phase

    async def recovery(self, steps_per_second: float, limit_ms: float, seconds: float) -> tuple[Phase, float]:
        """Applies a light load. Returns the phase, and the seconds after which every answer came within `limit_ms`."""
        started = time.perf_counter()
        phase = await self.open(steps_per_second, seconds)
        slow = [a.sent_at - started for a in self._answers if a.ms > limit_ms or not a.good]
        return phase, max(slow, default=0.0)

    async def _send(self, timeout_s: float) -> None:
        if (answer := await self._calls.send(timeout_s)) is not None:
            self._answers.append(answer)

    def _phase(self, seconds: float) -> Phase:
        phase = Phase(seconds=seconds, sent=len(self._answers) * self._plan.items)
        for answer in self._answers:
            phase.good += answer.good
            phase.refused += answer.refused
            phase.advised += answer.advised
            phase.at_client += answer.at_client
            phase.late += answer.late
            if answer.other:
                phase.other[answer.other[:100]] = phase.other.get(answer.other[:100], 0) + 1
        phase.good_ms = _spread([a.ms for a in self._answers if a.good])
        phase.refused_ms = _spread([a.ms for a in self._answers if a.refused and not a.good])
        return phase


async def press(target: str, plan: Plan) -> dict[str, Any]:
    calls: Calls = OfficialCalls(target, plan) if plan.official else RawCalls(target, plan)
    try:
        await calls.open()
        pressure = Pressure(calls, plan)
        await pressure.closed(plan.capacity_s / 2)  # makes every session hot and every connection ready
        capacity = await pressure.closed(plan.capacity_s)
        peak = capacity.good / capacity.seconds
        calm, _ = await pressure.recovery(PROBE_SHARE * peak, 0.0, plan.after_s / 2)
        print("overload begins", flush=True)
        over = await pressure.open(plan.times * peak, plan.overload_s)
        limit_ms = 3 * calm.good_ms[1] + 20
        after, recovery_s = await pressure.recovery(PROBE_SHARE * peak, limit_ms, plan.after_s)
        again = await pressure.closed(plan.capacity_s)
        capacity = max(capacity, again, key=lambda phase: phase.good / phase.seconds)
    finally:
        await calls.close()
    phases = {"capacity": capacity, "calm": calm, "overload": over, "after": after}
    return {
        "recovery_s": recovery_s,
        "recovery_limit_ms": limit_ms,
        **{name: asdict(phase) for name, phase in phases.items()},
    }


def _spread(values: list[float]) -> list[float]:
    if not values:
        return []
    return [round(float(value), 2) for value in np.percentile(values, (50, 99, 100))]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(press(sys.argv[1], Plan(**json.loads(sys.argv[2]))))))
