"""The official client as the load.

It makes single steps of many sessions, each at its session's position, and retries them until their deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

import numpy as np
from cellkeeper import AsyncClient, AsyncSession, CellkeeperError, QueueFull

from .calls import Answer, Plan

SAMPLE = np.ones(1, np.float32)
OPENING_S = 60.0
OPENED_TOGETHER = 64


class OfficialCalls:
    """Makes steps with the official client; each session has at most one in flight.

    A step is refused if its deadline passed while the server refused it, and late if the server had accepted it, or had
    not answered.
    """

    def __init__(self, target: str, plan: Plan) -> None:
        self._plan = plan
        self._clients = [AsyncClient(target, timeout=plan.deadline_s) for _ in range(plan.clients)]
        self._idle: deque[AsyncSession] = deque()

    async def open(self) -> None:
        room = asyncio.Semaphore(OPENED_TOGETHER)

        async def opened(number: int) -> AsyncSession:
            async with room:
                client = self._clients[number % len(self._clients)]
                session: AsyncSession = await client.open(f"load-{number}", model="count", timeout=OPENING_S)
                return session

        self._idle.extend(await asyncio.gather(*map(opened, range(self._plan.sessions))))

    async def send(self, timeout_s: float) -> Answer | None:
        """Makes one step. Returns None, sending nothing, if every session has a step in flight."""
        if not self._idle:
            return None
        session = self._idle.popleft()
        sent_at = time.perf_counter()
        answer = Answer(sent_at, 0.0)
        try:
            await session.step(SAMPLE, timeout=timeout_s)
            answer.good = 1
        except CellkeeperError as error:
            _read(error, answer)
        answer.ms = 1000 * (time.perf_counter() - sent_at)
        self._idle.append(session)
        return answer

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


def _read(error: CellkeeperError, answer: Answer) -> None:
    last = error.__cause__ if isinstance(error.__cause__, CellkeeperError) else error
    if isinstance(last, QueueFull):
        answer.refused, answer.advised = 1, int(last.retry_delay_ms > 0)
    elif error.reason in ("DEADLINE_PASSED", "DEADLINE_EXCEEDED"):
        answer.late = 1
    else:
        answer.other = f"{type(error).__name__}: {error}"
