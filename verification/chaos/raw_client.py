"""A client that speaks the wire directly: it sends requests to any server, to two at once, out of order, and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from testing.wire_client import WAYS, Chunk, Refused, Replica, Result

from .answers import note
from .expected_errors import PASSING
from .history import COPY, Burst
from .late_copies import LateCopies
from .opening import opened
from .workload import TIMEOUT_S, TrackedSession, Workload

MOST_CHUNK_STEPS = 20
MOST_WINDOW = 4
CALL_S = 1.5


class RawClient:
    """A client of one session: sends windows of chunks, each until it is answered."""

    def __init__(self, workload: Workload, name: str, tracked: TrackedSession, late: LateCopies) -> None:
        self.name = name
        self._workload = workload
        self.tracked = tracked
        self._late = late
        self._draw = workload.dice()
        self._held = 0

    async def run(self) -> None:
        replicas = [Replica(target, CALL_S) for target in self._workload.targets]
        try:
            while True:
                last = self._workload.ending.is_set()
                if self.tracked.position is None and not await self._open(replicas, insisting=False):
                    await asyncio.sleep(0.05)
                    continue
                done = await self._window(replicas, 1 if last else self._draw.randint(1, MOST_WINDOW))
                if last and done:
                    return
                if not done:
                    await self._open(replicas, insisting=True)
        finally:
            for replica in replicas:
                await replica.close()

    async def step_singly(self, replicas: Sequence[Replica], count: int) -> None:
        """Makes `count` single steps, one after another; fewer if one is refused."""
        if self.tracked.position is None and not await self._open(replicas, insisting=False):
            return
        for _ in range(count):
            if not await self._window(replicas, 1, 1):
                await self._open(replicas, insisting=True)
                return

    async def _open(self, replicas: Sequence[Replica], *, insisting: bool) -> bool:
        found = await opened(self._workload, self.tracked, self.name, replicas, self._draw, insisting=insisting)
        if found and self.tracked.position is not None:
            self._held = self.tracked.position.step
        return found

    async def _window(self, replicas: Sequence[Replica], chunks: int, most_steps: int = MOST_CHUNK_STEPS) -> bool:
        """Sends some chunks, in any order. Returns True if all were answered."""
        tracked, draw = self.tracked, self._draw
        position = tracked.position
        if position is None:
            return False
        bursts = []
        for _ in range(chunks):
            inputs = self._workload.draw_inputs(tracked.model, draw, draw.randint(1, draw.choice((1, most_steps))))
            bursts.append(self._workload.begin(tracked, position, inputs, self._held))
            position = position.after(inputs)
        order = draw.sample(bursts, len(bursts)) if draw.random() < 0.3 else bursts
        if order != bursts:
            self._workload.did("out_of_order")
        await asyncio.gather(*(self._deliver(replicas, burst, bursts) for burst in order))
        for burst in bursts:
            if not burst.complete:
                return False
            tracked.position = burst.acks[0].position
            self._held = tracked.position.step
            if draw.random() < 0.2:
                self._late.keep(burst)
        return True

    async def _deliver(self, replicas: Sequence[Replica], burst: Burst, window: Sequence[Burst]) -> None:
        """Sends the chunk repeatedly, until it is answered or refused for good."""
        draw, until, delay_s = self._draw, time.monotonic() + TIMEOUT_S, 0.005
        while True:
            routes = draw.sample(list(replicas), min(len(replicas), 2 if draw.random() < 0.25 else 1))
            if len(routes) > 1:
                self._workload.did("sent_twice")
            ahead = any(not other.complete and not other.error for other in window[: window.index(burst)])
            chunk = Chunk(burst.model, burst.session, burst.inputs, burst.start, burst.acked)
            answers = await asyncio.gather(*(WAYS[draw.choice(sorted(WAYS))](route, [chunk]) for route in routes))
            refused = [answer[0] for answer in answers if isinstance(answer[0], Refused)]
            for answer in answers:
                if isinstance(answer[0], Result):
                    if burst.complete:  # the second answer to the same chunk
                        twin = Burst(
                            burst.session, burst.model, burst.start, burst.inputs, burst.acked, COPY, burst.sent_at
                        )
                        twin.late = True
                        note(self._workload.history.add_burst(twin), answer[0])
                    else:
                        note(burst, answer[0])
            if burst.complete:
                return
            final = [why for why in refused if why.reason not in PASSING and not (ahead and why.reason == "STEP_GAP")]
            if final or time.monotonic() > until:
                note(burst, (final or refused)[0])
                return
            self._workload.did("sent_again")
            await asyncio.sleep(draw.uniform(0.5, 1.0) * delay_s)
            delay_s = min(2 * delay_s, 0.2)
