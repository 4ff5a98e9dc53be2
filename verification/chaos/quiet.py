"""The quiet end of a round, with no fault left and no other client: nothing excuses an error any more.

Every request gets an answer: at other times, clients' retries hide one that gets none. The servers' metrics count it
once: at other times, servers are killed, and their counts with them. In the end, no server holds a request.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from testing.wire_client import WAYS, Chunk, Refused, Replica

from .answers import note
from .deployment import Deployment, Server
from .history import COPY, Burst, Metrics
from .workload import TIMEOUT_S, TrackedSession, Workload

STEPS = 50  # of each session
MOST_CHUNK_STEPS = 3
REPEATED = 0.25  # of the chunks, which are then answered from the log
BUSY = ("STORE_UNAVAILABLE", "QUEUE_FULL")  # on a loaded machine, even in the quiet
STEADY_S = 0.3  # without a change of the metrics
COUNTED_S = 5.0


async def step_quietly(workload: Workload, deployment: Deployment, sessions: Sequence[TrackedSession]) -> None:
    """Steps the sessions, one chunk after another, sends some again, and records what the metrics counted.

    sessions: those that are open, each stepped by nobody else.
    """
    replicas = [Replica(target, TIMEOUT_S) for target in workload.targets]
    try:
        before = await _steady(deployment)
        parts = await asyncio.gather(*(_step(workload, tracked, replicas) for tracked in sessions))
    finally:
        for replica in replicas:
            await replica.close()
    acks = [ack for bursts in parts for burst in bursts for ack in burst.acks]
    answered = Metrics(sum(ack.rows for ack in acks if ack.applied), len(acks), sum(not ack.applied for ack in acks))
    workload.history.metrics = (answered, (await _steady(deployment)).since(before))
    for number, server in enumerate(deployment.servers):
        if depth := await _queue_depth(server):
            words = f"server {number} holds {depth:g} requests that it does not answer, though nothing is in flight"
            workload.history.crashes.append(words)


async def _step(workload: Workload, tracked: TrackedSession, replicas: Sequence[Replica]) -> list[Burst]:
    draw, bursts = workload.dice(), list[Burst]()
    for _ in range(STEPS):
        if tracked.position is None:
            return bursts
        inputs = workload.draw_inputs(tracked.model, draw, draw.randint(1, MOST_CHUNK_STEPS))
        burst = workload.begin(tracked, tracked.position, inputs, tracked.position.step)
        bursts.append(await _sent(burst, replicas, draw))
        tracked.position = burst.acks[0].position if burst.acks else None
        if burst.acks and draw.random() < REPEATED:
            copy = Burst(burst.session, burst.model, burst.start, inputs, burst.acked, COPY, time.monotonic())
            copy.late = True
            bursts.append(await _sent(workload.history.add_burst(copy), replicas, draw))
    return bursts


async def _sent(burst: Burst, replicas: Sequence[Replica], draw: random.Random) -> Burst:
    """Sends the burst, again only if a server says that it, or its store, is too busy. Returns it with its answer."""
    burst.quiet = True
    chunk, until = (
        Chunk(burst.model, burst.session, burst.inputs, burst.start, burst.acked),
        time.monotonic() + TIMEOUT_S,
    )
    while True:
        (answer,) = await WAYS[draw.choice(sorted(WAYS))](draw.choice(replicas), [chunk])
        if not isinstance(answer, Refused) or answer.reason not in BUSY or time.monotonic() > until:
            note(burst, answer)
            return burst
        await asyncio.sleep(0.1)


async def _queue_depth(server: Server) -> float:
    """Returns how many requests are in the server, after COUNTED_S if there are still some."""
    until = time.monotonic() + COUNTED_S
    while depth := await asyncio.to_thread(server.metric, "cellkeeper_queue_depth"):
        if time.monotonic() > until:
            break
        await asyncio.sleep(STEADY_S)
    return depth


async def _steady(deployment: Deployment) -> Metrics:
    """Returns the metrics once they do not change any more: the last requests of killed clients have arrived, too."""
    until = time.monotonic() + COUNTED_S
    counted = await _counted(deployment)
    while time.monotonic() < until:
        await asyncio.sleep(STEADY_S)
        before, counted = counted, await _counted(deployment)
        if counted == before:
            break
    return counted


async def _counted(deployment: Deployment) -> Metrics:
    """Returns the sums of all servers' metrics."""
    names = ("cellkeeper_steps_total", "cellkeeper_chunks_total", "cellkeeper_duplicates_replayed_total")
    sums = [0, 0, 0]
    for server in deployment.servers:
        for place, name in enumerate(names):
            sums[place] += int(await asyncio.to_thread(server.metric, name))
    return Metrics(*sums)
