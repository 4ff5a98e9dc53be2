"""A client that resets, overwrites, copies and deletes other clients' sessions while their steps are in flight.

It also sends what it sent before once more, as a network may: by then the session may have another generation.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb

from testing.wire_client import WIRE_DTYPES, Position, Refused, Replica

from .expected_errors import PASSING
from .history import INTERFERING, Operation
from .workload import TrackedSession, Workload

TRIES = 12
REMEMBERED = 64  # requests, to be sent again
REPEATS = 0.4  # of its operations
FOCUS = 4  # sessions that it prefers, whose generations follow one another fast


class InterferingClient:
    """Picks sessions of others at random. pause_s: mean seconds between two operations."""

    def __init__(self, workload: Workload, pause_s: float) -> None:
        self._workload = workload
        self._pause_s = pause_s
        self._draw = workload.dice()
        self._sent: deque[tuple[Operation, str, object]] = deque(maxlen=REMEMBERED)
        self._focus: list[TrackedSession] = []

    async def run(self, replicas: Sequence[Replica]) -> None:
        while not self._workload.stopping.is_set():
            await self._workload.pause(self._draw.expovariate(1.0) * self._pause_s)
            sessions = list(self._workload.tracked_sessions.values())
            self._focus = self._focus or self._draw.sample(sessions, min(FOCUS, len(sessions)))
            chosen = self._focus if self._draw.random() < 0.7 else sessions
            known = [tracked for tracked in chosen if tracked.position is not None]
            if self._workload.stopping.is_set():
                return
            if self._sent and self._draw.random() < REPEATS:
                await self._repeat(replicas)
                continue
            if not known:
                continue
            tracked = self._draw.choice(known)
            position = tracked.position
            if position is None:
                continue
            kind = self._draw.choice(("reset", "reset", "set_state", "fork", "fork", "delete"))
            self._workload.did(f"racing_{kind}")
            await getattr(self, f"_{kind}")(replicas, tracked, position)

    async def _reset(self, replicas: Sequence[Replica], tracked: TrackedSession, position: Position) -> None:
        operation = self._workload.operation("reset", tracked, INTERFERING, generation=position.generation)
        item = pb.ResetRequest.Item(session=tracked.session, generation=position.generation, request_id=os.urandom(16))
        await self._do(replicas, operation, "Reset", pb.ResetRequest(model=tracked.model.name, items=[item]))

    async def _set_state(self, replicas: Sequence[Replica], tracked: TrackedSession, position: Position) -> None:
        states, tensors = {}, []
        for spec in tracked.model.engine.spec.states:
            states[spec.name] = np.full(spec.shape, self._draw.randint(0, 8) / 8, np.float32)
            raw = states[spec.name].tobytes()
            tensors.append(pb.Tensor(name=spec.name, dtype=WIRE_DTYPES["float32"], shape=spec.shape, data=raw))
        step = 1_000_000 * self._workload.number()
        operation = self._workload.operation(
            "set_state", tracked, INTERFERING, generation=position.generation, states=states, step=step
        )
        item = pb.SetStateRequest.Item(
            session=tracked.session,
            generation=position.generation,
            request_id=os.urandom(16),
            step=step,
            state=tensors,
        )
        await self._do(replicas, operation, "SetState", pb.SetStateRequest(model=tracked.model.name, items=[item]))

    async def _fork(self, replicas: Sequence[Replica], tracked: TrackedSession, position: Position) -> None:
        branch = self._workload.branch_of(tracked)
        operation = self._workload.operation("fork", branch, INTERFERING, source=tracked.session, at_position=position)
        item = pb.ForkRequest.Item(
            source=tracked.session, position=position.message(), target=branch.session, request_id=os.urandom(16)
        )
        await self._do(replicas, operation, "Fork", pb.ForkRequest(model=tracked.model.name, items=[item]))

    async def _delete(self, replicas: Sequence[Replica], tracked: TrackedSession, position: Position) -> None:
        operation = self._workload.operation("delete", tracked, INTERFERING, generation=position.generation)
        item = pb.DeleteRequest.Item(session=tracked.session, generation=position.generation)
        await self._do(replicas, operation, "Delete", pb.DeleteRequest(model=tracked.model.name, items=[item]))

    async def _repeat(self, replicas: Sequence[Replica]) -> None:
        """Sends an earlier request again: the same bytes, whatever has become of its session."""
        await self._send_again(replicas, *self._draw.choice(self._sent))

    async def repeat_all(self, replicas: Sequence[Replica]) -> None:
        """Repeats every remembered request, when the faults are over and the clients have still to make a step."""
        for sent in self._sent:
            await self._send_again(replicas, *sent)

    async def _send_again(self, replicas: Sequence[Replica], first: Operation, method: str, request: object) -> None:
        again = replace(first, sent_at=time.monotonic(), at=0.0, result=None, deleted=False, error="", error_text="")
        self._workload.did(f"repeated_{first.kind}")
        await self._send(replicas, self._workload.history.add_operation(again), method, request)

    async def _do(self, replicas: Sequence[Replica], operation: Operation, method: str, request: object) -> None:
        self._sent.append((operation, method, request))
        await self._send(replicas, operation, method, request)

    async def _send(self, replicas: Sequence[Replica], operation: Operation, method: str, request: object) -> None:
        """Sends the request to any server until one answers, sometimes to two at once. Gives up after TRIES."""
        for _ in range(TRIES):
            routes = self._draw.sample(list(replicas), min(len(replicas), self._draw.choice((1, 1, 2))))
            replies = await asyncio.gather(*(route.call(method, request) for route in routes))
            if any(self._note(operation, reply) for reply in replies):
                return
            await self._workload.pause(0.1)

    def _note(self, operation: Operation, reply: object) -> bool:
        """Records how the operation ended. Returns False if the reply does not tell."""
        if isinstance(reply, Refused):
            if reply.reason not in PASSING:
                operation.error, operation.error_text, operation.at = reply.reason, reply.message, time.monotonic()
                return True
            return False
        if not isinstance(reply, pb.SessionResults):
            raise TypeError(f"got {reply!r}, expected SessionResults")
        result = reply.results[0]
        if result.HasField("error"):
            reason = pb.Reason.Name(result.error.reason)
            if reason in PASSING:
                return False
            operation.error, operation.error_text = reason, result.error.message
        elif operation.kind == "delete":
            operation.deleted = result.deleted
        else:
            operation.result = Position.of(result.position)
        operation.at = time.monotonic()
        return True
