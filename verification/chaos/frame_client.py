"""A client that speaks the wire directly and steps many sessions of one model together, single steps in one frame.

That is a server's normal traffic, with disturbances in the middle: frames are resent, sent to two servers at once, sent
to another server than the previous one, and sent before the one ahead of them is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from testing.wire_client import WAYS, Answer, Chunk, Refused, Replica, Result

from .answers import note
from .expected_errors import PASSING
from .history import COPY, Burst
from .opening import OPENING, opened
from .raw_client import CALL_S
from .workload import TIMEOUT_S, TrackedSession, Workload

FRAME_WAYS = ("batch", "stream")
MOST_ROWS = 12  # frames in sequence, between two checks of the surroundings
MOST_AHEAD = 4  # frames in flight at the same time


@dataclass(eq=False)
class _Row:
    """One time step of one session: the next one of a burst. ahead: the session's bursts that come before it."""

    burst: Burst
    ahead: Sequence[Burst]
    acked: int

    def chunk(self) -> Chunk:
        burst, done = self.burst, len(self.burst.acks)
        start = burst.acks[-1].position if done else burst.start
        return Chunk(burst.model, burst.session, burst.inputs[done : done + 1], start, self.acked)

    @property
    def is_behind(self) -> bool:
        return any(not burst.complete and not burst.error for burst in self.ahead)


class FrameClient:
    """Steps many sessions together. tracked_sessions: of one model."""

    def __init__(self, workload: Workload, name: str, tracked_sessions: Sequence[TrackedSession]) -> None:
        self.name = name
        self._workload = workload
        self._tracked_sessions = tracked_sessions
        self._draw = workload.dice()
        self._home = 0
        self._to_reopen: set[str] = set()  # sessions to reopen

    async def run(self) -> None:
        replicas = [Replica(target, CALL_S) for target in self._workload.targets]
        try:
            while True:
                last = self._workload.ending.is_set()
                await self._open(replicas)
                members = [
                    each for each in self._tracked_sessions if each.position and each.session not in self._to_reopen
                ]
                ahead = 1 if last or self._draw.random() < 0.8 else self._draw.randint(2, MOST_AHEAD)
                rows = self._draw.randint(1, MOST_ROWS) if ahead == 1 and not last else 1
                await self._beat(replicas, members, ahead, rows)
                if last and not self._to_reopen and len(members) == len(self._tracked_sessions):
                    return
                if not members:
                    await asyncio.sleep(0.05)
        finally:
            for replica in replicas:
                await replica.close()

    async def _open(self, replicas: Sequence[Replica]) -> None:
        room = asyncio.Semaphore(OPENING)

        async def one(tracked: TrackedSession) -> None:
            async with room:
                if await opened(self._workload, tracked, self.name, replicas, self._draw, insisting=True):
                    self._to_reopen.discard(tracked.session)

        lost = [each for each in self._tracked_sessions if each.position is None or each.session in self._to_reopen]
        await asyncio.gather(*map(one, lost))

    async def _beat(
        self, replicas: Sequence[Replica], members: Sequence[TrackedSession], ahead: int, rows: int
    ) -> None:
        """Sends `rows` frames in sequence, or `ahead` of them concurrently."""
        draw = self._draw
        windows = [self._window(tracked, ahead, rows) for tracked in members]
        if draw.random() < 0.02 or not members:
            self._home = draw.randrange(len(replicas))
        await asyncio.gather(
            *(
                self._column(replicas, [(window[:number], window[number]) for window in windows], ahead == 1)
                for number in range(ahead)
            )
        )
        for tracked, window in zip(members, windows, strict=True):
            for burst in window:
                if burst.acks:
                    tracked.position = burst.acks[-1].position
                if not burst.complete:
                    self._to_reopen.add(tracked.session)
                    break

    def _window(self, tracked: TrackedSession, ahead: int, rows: int) -> list[Burst]:
        """Returns one burst for each frame in flight at the same time."""
        position, bursts = tracked.position, list[Burst]()
        if position is None:
            raise ValueError(f"{tracked.session!r} is not open")
        held = position.step
        for _ in range(ahead):
            inputs = self._workload.draw_inputs(tracked.model, self._draw, rows)
            bursts.append(self._workload.begin(tracked, position, inputs, held, held + rows - 1))
            position = position.after(inputs)
        return bursts

    async def _column(
        self, replicas: Sequence[Replica], column: Sequence[tuple[Sequence[Burst], Burst]], holding: bool
    ) -> None:
        """Sends one frame for each row of the bursts, with those whose earlier rows were answered.

        holding: each row says that all replies before it are held.
        """
        for index in range(max((len(burst.inputs) for _, burst in column), default=0)):
            going = [
                _Row(burst, ahead, burst.start.step + index if holding else burst.acked)
                for ahead, burst in column
                if not burst.error
            ]
            await self._deliver(replicas, going)

    async def _deliver(self, replicas: Sequence[Replica], rows: list[_Row]) -> None:
        """Sends the rows in one frame, and resends what was not answered until all are answered or refused for good."""
        draw, until, delay_s = self._draw, time.monotonic() + TIMEOUT_S, 0.005
        while rows:
            routes = [self._home]
            if len(replicas) > 1 and draw.random() < 0.1:
                routes = draw.sample(range(len(replicas)), 2)
                self._workload.did("frame_sent_twice")
            behind = [row.is_behind for row in rows]
            answered = await asyncio.gather(*(self._send(replicas[route], rows) for route in routes))
            rows = self._take(rows, behind, list(zip(*answered, strict=True)), over=time.monotonic() > until)
            if not rows:
                break
            self._workload.did("frame_sent_again")
            self._home = draw.randrange(len(replicas))
            await asyncio.sleep(draw.uniform(0.5, 1.0) * delay_s)
            delay_s = min(2 * delay_s, 0.2)

    async def _send(self, replica: Replica, rows: Sequence[_Row]) -> list[Answer]:
        answers: list[Answer] = await WAYS[self._draw.choice(FRAME_WAYS)](replica, [row.chunk() for row in rows])
        return answers

    def _take(
        self, rows: Sequence[_Row], behind: Sequence[bool], answers: Sequence[Sequence[Answer]], *, over: bool
    ) -> list[_Row]:
        """Records the answers to each row. Returns the rows to send again."""
        again = []
        for row, may_gap, copies in zip(rows, behind, answers, strict=True):
            results = [answer for answer in copies if not isinstance(answer, Refused)]
            if results:
                self._done(row, results)
                continue
            refused = [answer for answer in copies if isinstance(answer, Refused)]
            passing = PASSING | {"STEP_GAP"} if may_gap else PASSING
            final = [why for why in refused if why.reason not in passing]
            if final or over:
                note(row.burst, (final or refused)[0])
            else:
                again.append(row)
        return again

    def _done(self, row: _Row, results: Sequence[Result]) -> None:
        """Records the answers to a row. The second one, from another server, counts as the answer to a copy."""
        burst, chunk = row.burst, row.chunk()
        note(burst, results[0], rows=1)
        for result in results[1:]:
            copy = Burst(burst.session, burst.model, chunk.position, chunk.inputs, row.acked, COPY, burst.sent_at)
            copy.late = True
            note(self._workload.history.add_burst(copy), result)
