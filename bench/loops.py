"""Closed loops send a message when the previous one is answered, open loops when it is due."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

from .latencies import counted
from .load import Load, Measured

Send = Callable[[int], Awaitable[int]]
"""Sends one message of flow i and waits for its whole answer. Returns its time steps."""

WARM_SECONDS = 0.2
DRAIN_SECONDS = 2.0


async def measure(send: Send, load: Load, seconds: float) -> Measured:
    return await (open_loop if load.rate else closed_loop)(send, load, seconds)


async def closed_loop(send: Send, load: Load, seconds: float) -> Measured:
    """Counts the steps that are answered within the given seconds, after a short warm-up.

    Latencies are those of all messages sent within them: leaving out those in flight at the end would favour the fast
    ones.
    """
    begin = time.perf_counter() + WARM_SECONDS
    end = begin + seconds
    took: list[float] = []
    answered = 0

    async def flow(number: int) -> None:
        nonlocal answered
        now = time.perf_counter()
        while now < end:
            sent = now
            steps = await send(number)
            now = time.perf_counter()
            if begin <= now < end:
                answered += steps
            if begin <= sent:
                took.append(now - sent)

    _raise_first(await asyncio.gather(*[flow(number) for number in range(load.flows)], return_exceptions=True))
    return _measured(answered / seconds, took)


async def open_loop(send: Send, load: Load, seconds: float) -> Measured:
    """Sends messages at random times (a Poisson process), to one flow after another; a flow sends one at a time.

    Time counts from when a message was due, so that a wait for the one before it, or for this process, counts. Every
    message's time counts, however late its answer: those that are missing would be the slowest.
    """
    draw = random.Random(1)
    locks = [asyncio.Lock() for _ in range(load.flows)]
    took: list[float] = []
    failed: list[BaseException | None] = []
    running: set[asyncio.Task[None]] = set()
    answered = 0

    async def one(number: int, due: float) -> None:
        nonlocal answered
        try:
            async with locks[number]:
                steps = await send(number)
        except Exception as error:  # noqa: BLE001  # raised when the loop has ended
            failed.append(error)
            return
        answered += steps  # not `answered += await`, which would read it before the wait
        took.append(time.perf_counter() - due)

    begin = time.perf_counter()
    due, number = begin, 0
    while due < begin + seconds:
        await asyncio.sleep(max(due - time.perf_counter(), 0.0))
        task = asyncio.ensure_future(one(number % load.flows, due))
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
        due += draw.expovariate(load.rate)
    late: set[asyncio.Task[None]] = set()
    if running:
        _, late = await asyncio.wait(set(running), timeout=DRAIN_SECONDS)
    rate = answered / (time.perf_counter() - begin)
    if late:
        await asyncio.wait(late)
    _raise_first(failed)
    return _measured(rate, took, number / seconds, len(late))


def _raise_first(results: Sequence[BaseException | None]) -> None:
    for result in results:
        if result is not None:
            raise result


def _measured(rate: float, took: list[float], offered: float = 0.0, late: int = 0) -> Measured:
    if not took:
        raise RuntimeError("no message was answered in time")
    return Measured(rate, len(took), 1e3 * statistics.median(took), counted(took), offered, late)
