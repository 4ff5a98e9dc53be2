"""Clients that speak the wire directly and mistreat their requests.

They send them to any server, to two at once, out of order, again after the answer, and again long after.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from testing.wire_client import WAYS, Chunk, Position, Refused, Replica, Result

from .excuses import PASSING
from .history import LATE, Ack, Array, Burst
from .opening import OPENING, opened
from .workload import TIMEOUT_S, TrackedSession, Workload

MOST_CHUNK_STEPS = 20
MOST_WINDOW = 4
CALL_S = 1.5
TRIES = 2
REST_TRIES = 10


class LateCopies:
    """Keeps what was sent and sends it again later: after seconds, or when everything is over."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._draw = workload.dice()
        self._bag: deque[tuple[float, Burst]] = deque()
        self._held: dict[
            tuple[str, Position], TrackedSession
        ] = {}  # what its copies were told, by session and position

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
            (answer,) = await WAYS[any_way(self._draw)](self._draw.choice(replicas), [chunk])
            if not isinstance(answer, Refused) or answer.reason not in PASSING:
                break
        note(copy, answer)
        if copy.acks:
            place = copy.acks[-1].position
            model = next(each for each in self._workload.models if each.name == copy.model)
            self._held[copy.session, place] = TrackedSession(copy.session, model, place)


class RawClient:
    """A client of one session: sends windows of chunks, each until it is answered."""

    def __init__(self, workload: Workload, name: str, tracked: TrackedSession, late: LateCopies) -> None:
        self.name = name
        self._workload = workload
        self._tracked = tracked
        self._late = late
        self._draw = workload.dice()
        self._held = 0

    async def run(self) -> None:
        replicas = [Replica(target, CALL_S) for target in self._workload.targets]
        try:
            while True:
                last = self._workload.ending.is_set()
                if self._tracked.position is None and not await self._open(replicas, insisting=False):
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
        if self._tracked.position is None and not await self._open(replicas, insisting=False):
            return
        for _ in range(count):
            if not await self._window(replicas, 1, 1):
                await self._open(replicas, insisting=True)
                return

    async def _open(self, replicas: Sequence[Replica], *, insisting: bool) -> bool:
        found = await opened(self._workload, self._tracked, self.name, replicas, self._draw, insisting=insisting)
        if found and self._tracked.position is not None:
            self._held = self._tracked.position.step
        return found

    async def _window(self, replicas: Sequence[Replica], chunks: int, most_steps: int = MOST_CHUNK_STEPS) -> bool:
        """Sends some chunks, in any order. Returns True if all were answered."""
        tracked, draw = self._tracked, self._draw
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
            answers = await asyncio.gather(*(WAYS[any_way(draw)](route, [chunk]) for route in routes))
            refused = [answer[0] for answer in answers if isinstance(answer[0], Refused)]
            for answer in answers:
                if isinstance(answer[0], Result):
                    if burst.complete:  # the second answer to the same chunk
                        twin = Burst(
                            burst.session, burst.model, burst.start, burst.inputs, burst.acked, "copy", burst.sent_at
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


def any_way(draw: random.Random) -> str:
    return draw.choice(sorted(WAYS))


def note(burst: Burst, answer: Result | Refused, rows: int = 0) -> None:
    """Records how the next `rows` time steps of the burst were answered; 0: all of them."""
    now = time.monotonic()
    if isinstance(answer, Refused):
        burst.error, burst.error_text, burst.error_at = answer.reason, answer.message, now
        return
    outputs, rows = {}, rows or len(burst.inputs)
    for name, raw in answer.outputs.items():
        outputs[name] = _rows(raw, rows)
    burst.acks.append(Ack(rows, now, answer.position, outputs, {}, not answer.replayed))


def _rows(raw: bytes, rows: int) -> Array:
    """Returns [rows, bytes of a row]: only bits are compared."""
    return np.frombuffer(raw, np.uint8).reshape(rows, -1)
