"""Copies of requests that arrive long after the answer, as a network may deliver them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from testing.wire_client import WAYS, Chunk, Position, Refused, Replica

from .answers import note
from .expected_errors import PASSING
from .history import LATE, Burst
from .opening import OPENING, opened
from .workload import TrackedSession, Workload

TRIES = 2
REST_TRIES = 10


class LateCopies:
    """Keeps what was sent and sends it again later: after seconds, or when everything is over."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._draw = workload.dice()
        self._bag: deque[tuple[float, Burst]] = deque()
        # what its copies were told, by session and position
        self._held: dict[tuple[str, Position], TrackedSession] = {}

    def keep(self, burst: Burst) -> None:
        if len(self._bag) < 2000:
            self._bag.append((time.monotonic() + self._draw.choice((0.1, 1.0, 5.0, 60.0)), burst))

    async def run(self, replicas: Sequence[Replica]) -> None:
        while not self._workload.stopping.is_set():
            self._pick()
            await self._send_due(replicas, time.monotonic())
            await self._workload.pause(0.1)

    async def send_rest(self, replicas: Sequence[Replica]) -> None:
        """Sends the remaining copies when all faults are over, so that a transient refusal must end soon."""
        await self._send_due(replicas, float("inf"), tries=REST_TRIES)

    async def ask_again(self, replicas: Sequence[Replica]) -> None:
        """After the last fault, checks that every position named in an answer to a copy is still one of its session's.

        The session's own client may not know of these steps, and would not notice their loss.
        """
        room = asyncio.Semaphore(OPENING)

        async def ask(tracked: TrackedSession) -> None:
            async with room:
                await opened(self._workload, tracked, LATE, replicas, self._draw, insisting=True)

        await asyncio.gather(*map(ask, self._held.values()))

    def _pick(self) -> None:
        """Keeps some of what the others sent, answered or not."""
        sessions = list(self._workload.history.bursts)
        for session in self._draw.sample(sessions, min(3, len(sessions))):
            burst = self._draw.choice(self._workload.history.bursts[session][-20:])
            if not burst.late and (burst.error or burst.complete):
                self.keep(burst)

    async def _send_due(self, replicas: Sequence[Replica], now: float, tries: int = TRIES) -> None:
        waiting, due = deque[tuple[float, Burst]](), []
        for at, burst in self._bag:
            if at <= now:
                due.append(burst)
            else:
                waiting.append((at, burst))
        self._bag = waiting
        for first in range(0, len(due), 16):
            await asyncio.gather(*(self._send(replicas, burst, tries) for burst in due[first : first + 16]))

    async def _send(self, replicas: Sequence[Replica], burst: Burst, tries: int) -> None:
        self._workload.did("late_copy")
        copy = Burst(
            burst.session, burst.model, burst.start, burst.inputs, burst.acked, LATE, time.monotonic(), late=True
        )
        self._workload.history.add_burst(copy)
        chunk = Chunk(copy.model, copy.session, copy.inputs, copy.start, copy.acked)
        for number in range(tries):
            if number:
                await asyncio.sleep(0.2)
            (answer,) = await WAYS[self._draw.choice(sorted(WAYS))](self._draw.choice(replicas), [chunk])
            if not isinstance(answer, Refused) or answer.reason not in PASSING:
                break
        note(copy, answer)
        if copy.acks:
            place = copy.acks[-1].position
            model = next(each for each in self._workload.models if each.name == copy.model)
            self._held[copy.session, place] = TrackedSession(copy.session, model, place)
