"""The calls that load a server: frames or unary steps, without positions, directly from a gRPC channel.

Without positions, steps can be sent at any rate, whatever the outcome of earlier ones. Frames are built once and sent
unchanged.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.rpc import error_details_pb2, status_pb2

SERVICE = "/cellkeeper.v1.Cellkeeper/"
CHANNEL = (("grpc.use_local_subchannel_pool", 1),)
HELD_BACK = (("grpc.http.max_concurrent_streams_reject_on_client", 1), ("grpc.enable_retries", 0))
"""For a client that refuses its own calls beyond the server's --max-connection-rpcs, instead of queueing them."""
OPENED_TOGETHER = 16
OPENING_S = 60.0
BEYOND_LIMIT = "no quota to send RPC"  # gRPC's text for these


@dataclass(frozen=True)
class Plan:
    """The load to generate.

    items: sessions in one call; 1: the unary Step. sessions: over all calls. clients: connections. capacity_s,
    overload_s, after_s: length of the phases. deadline_s: of every call. times: multiple of the capacity. held_back:
    clients refuse their own calls beyond the server's limit for a connection. official: the load comes from the
    official client.
    """

    items: int
    sessions: int
    clients: int
    flows: int
    capacity_s: float
    overload_s: float
    after_s: float
    deadline_s: float
    times: float
    held_back: bool = False
    official: bool = False


@dataclass
class Answer:
    """The outcome of one call. good, refused, advised, at_client, late: counted in steps."""

    sent_at: float
    ms: float
    good: int = 0
    refused: int = 0
    advised: int = 0
    at_client: int = 0
    late: int = 0
    other: str = ""


class Calls(Protocol):
    """Sends the steps of one call, and reports the outcome."""

    async def open(self) -> None:
        """Connects, and creates the sessions if necessary."""

    async def send(self, timeout_s: float) -> Answer | None:
        """Makes one call. Returns None if nothing could be sent."""

    async def close(self) -> None: ...


class RawCalls:
    def __init__(self, target: str, plan: Plan) -> None:
        options = CHANNEL + HELD_BACK if plan.held_back else CHANNEL
        self._plan = plan
        self._channels = [grpc.aio.insecure_channel(target, options) for _ in range(plan.clients)]
        method = "StepBatch" if plan.items > 1 else "Step"
        self._calls = [channel.unary_unary(SERVICE + method, bytes, bytes) for channel in self._channels]
        names = [f"load-{n}" for n in range(plan.sessions)]
        self._requests = [_request(names[at : at + plan.items]) for at in range(0, len(names), plan.items)]
        self._next = 0

    async def open(self) -> None:
        """Sends every request once, a few concurrently, to create its sessions, which takes longer than a step."""
        for _ in range(0, len(self._requests), OPENED_TOGETHER):
            await asyncio.gather(*(self.send(OPENING_S) for _ in range(OPENED_TOGETHER)))

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close(None)

    async def send(self, timeout_s: float) -> Answer:
        number, self._next = self._next, self._next + 1
        call = self._calls[number % len(self._calls)]
        request = self._requests[number % len(self._requests)]
        items, sent_at = self._plan.items, time.perf_counter()
        answer = Answer(sent_at, 0.0)
        try:
            data = await call(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                answer.refused, answer.advised = items, items * _has_advice(error)
                answer.at_client = items * (BEYOND_LIMIT in (error.details() or ""))
            elif error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
                answer.late = items  # a server that notices the deadline first resets the call
            else:
                answer.other = f"{error.code().name}: {error.details()}"
        else:
            self._read(data, answer)
        answer.ms = 1000 * (time.perf_counter() - sent_at)
        return answer

    def _read(self, data: bytes, answer: Answer) -> None:
        if self._plan.items == 1:
            answer.good = 1
            return
        reply = pb.StepFrameReply.FromString(data)
        answer.good = len(reply.items) // 4
        for item in reply.errors:
            match item.error.reason:
                case pb.QUEUE_FULL:
                    answer.refused += 1
                    answer.advised += item.error.retry_delay_ms > 0
                case pb.DEADLINE_PASSED:
                    answer.late += 1
                case _:
                    answer.other = item.error.message
        if answer.good + len(reply.errors) != self._plan.items:
            answer.other = f"{answer.good} of {self._plan.items} items answered, {len(reply.errors)} refused"


def _request(sessions: list[str]) -> bytes:
    values = np.ones((len(sessions), 1), "<f4").tobytes()
    if len(sessions) == 1:
        step = pb.StepRequest(model="count", session=sessions[0], dtype=pb.FLOAT32, shape=[1, 1], inputs=values)
        return step.SerializeToString()
    frame = pb.StepFrame(model="count", sessions=sessions, dtype=pb.FLOAT32, step_shape=[1], inputs=values)
    return frame.SerializeToString()


def _has_advice(error: grpc.aio.AioRpcError) -> bool:
    metadata: Any = error.trailing_metadata()
    for key, value in metadata or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(bytes(value))
            return any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
    return False
