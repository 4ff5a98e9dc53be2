"""Sessions with a TTL in the quiet end of a round, where nothing but time passes between two uses."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.wire_client import Chunk, Position, Refused, Replica, Result
from tests.integration.acceptance.sequences import Model

from .answers import note
from .history import FinalRead
from .workload import TrackedSession, Workload

NEW = 3  # sessions whose last use is that they are opened
STEPPED = 3  # sessions that a server has in its cache when they expire
TTL_S = 2.0
IDLE = 0.7  # of its TTL, after which a session must still be there
EXPIRED_S = 0.3  # after its TTL, when it must be gone

Read = Callable[[str, str, int, Replica], Awaitable[FinalRead]]


async def use_rarely(workload: Workload, replicas: Sequence[Replica], read: Read) -> None:
    """Reads every session with a TTL now, before it may expire, and after it must have expired.

    So it does with new ones, which it opens: some are never stepped, and some are stepped instead of read, by the
    server that has their state.
    """
    model = workload.models[0]
    opened = [TrackedSession(f"{workload.prefix}new-{number}", model) for number in range(NEW)]
    stepped = [TrackedSession(f"{workload.prefix}stepped-{number}", model) for number in range(STEPPED)]
    for tracked in (*opened, *stepped):
        workload.history.ttls[tracked.session] = TTL_S
        await _open(workload, tracked, replicas[0])
    others = [
        (session, workload.history.models[session])
        for session in workload.history.ttls
        if session in workload.history.models and session not in {tracked.session for tracked in stepped}
    ]
    await asyncio.gather(
        *(_read(workload, session, name, replicas, read) for session, name in others),
        *(_step(workload, tracked, replicas[0]) for tracked in stepped if tracked.position is not None),
    )


async def _open(workload: Workload, tracked: TrackedSession, replica: Replica) -> None:
    operation = workload.operation("open", tracked, tracked.session)
    request = pb.OpenRequest(
        model=tracked.model.name, session=tracked.session, request_id=os.urandom(16), ttl_ms=int(1000 * TTL_S)
    )
    reply = await replica.call("Open", request)
    operation.at = time.monotonic()
    if isinstance(reply, Refused):
        operation.error, operation.error_text = reply.reason, reply.message
        return
    operation.result = tracked.position = Position.of(reply.position)
    operation.created = reply.created
    workload.opened(tracked, tracked.session)


async def _read(workload: Workload, session: str, model: str, replicas: Sequence[Replica], read: Read) -> None:
    ttl_s, reads = workload.history.ttls[session], workload.history.idle_reads[session]
    new = session.removeprefix(workload.prefix).startswith("new-")
    if new:  # its opening was its last use
        operation = workload.history.operations[session][0]
        reads.append(FinalRead(session, model, operation.result, {}, 0, operation.sent_at, operation.at))
    for idle_s in (0.0, IDLE * ttl_s, ttl_s + EXPIRED_S, 0.0)[int(new) :]:
        await asyncio.sleep(idle_s)  # what is tested is that time passes
        number = len(reads) % len(replicas)
        reads.append(await read(session, model, number, replicas[number]))


async def _step(workload: Workload, tracked: TrackedSession, replica: Replica) -> None:
    """Steps the session, and after its TTL once more, on the same server."""
    draw, reads = workload.dice(), workload.history.idle_reads[tracked.session]
    model: Model = tracked.model
    for idle_s in (0.0, IDLE * TTL_S, TTL_S + EXPIRED_S):
        await asyncio.sleep(idle_s)
        if tracked.position is None:
            return
        inputs, asked_at = workload.draw_inputs(model, draw, 1), time.monotonic()
        burst = workload.begin(tracked, tracked.position, inputs, tracked.position.step)
        answer = await replica.unary(Chunk(model.name, tracked.session, inputs, tracked.position, burst.acked))
        note(burst, answer)
        after = answer.position if isinstance(answer, Result) else None
        reads.append(FinalRead(tracked.session, model.name, after, {}, 0, asked_at, time.monotonic()))
        tracked.position = after
