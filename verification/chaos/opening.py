"""How the raw clients open a session: on any server, until it is answered."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Sequence

from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.wire_client import Position, Refused, Replica

from .expected_errors import PASSING, is_damaged
from .workload import TIMEOUT_S, TrackedSession, Workload

OPENING = 16  # concurrently
DAMAGED_S = 1.0


async def opened(
    workload: Workload,
    tracked: TrackedSession,
    name: str,
    replicas: Sequence[Replica],
    draw: random.Random,
    *,
    insisting: bool,
) -> bool:
    """Opens the session. Returns True if it is open now.

    insisting: on its known position; if that is refused, the position becomes unknown.
    """
    expect = tracked.position if insisting else None
    operation = workload.operation("open", tracked, name, expect=expect)
    request = pb.OpenRequest(
        model=tracked.model.name,
        session=tracked.session,
        request_id=os.urandom(16),
        expect=None if expect is None else expect.message(),
    )
    until = time.monotonic() + TIMEOUT_S
    reply = await draw.choice(replicas).call("Open", request)
    while isinstance(reply, Refused) and _may_pass(reply) and time.monotonic() < until:
        await asyncio.sleep(0.1)
        reply = await draw.choice(replicas).call("Open", request)
    operation.at = time.monotonic()
    if isinstance(reply, Refused):
        operation.error, operation.error_text = reply.reason, reply.message
        if is_damaged(reply.message):
            await asyncio.sleep(DAMAGED_S)  # asking again is of no use, yet a client of one session would
        if reply.reason not in PASSING:
            tracked.position = None
        return False
    operation.result, operation.created = Position.of(reply.position), reply.created
    tracked.position = operation.result
    workload.opened(tracked, name)
    return True


def _may_pass(refused: Refused) -> bool:
    return refused.reason in PASSING and not is_damaged(refused.message)
