"""The load of the overload test, in a process of its own: it must not wait for what it measures.

    python -m verification.load.pressure TARGET '{"items": 64, ...}'

Prints one line of JSON: what came of each phase. Steps carry no position, so that they can be sent at any rate whatever
came of those before them; frames are made once and sent as they are.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import numpy as np
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from google.rpc import error_details_pb2, status_pb2

SERVICE = "/cellkeeper.v1.Cellkeeper/"
TURN_S = 0.005  # an open loop sends what has become due in this time
CHANNEL = (("grpc.use_local_subchannel_pool", 1),)
HELD_BACK = (("grpc.http.max_concurrent_streams_reject_on_client", 1), ("grpc.enable_retries", 0))
"""A client that refuses its own calls beyond the server's --max-connection-rpcs, instead of letting them wait."""
BEYOND_LIMIT = "no quota to send RPC"  # what gRPC says for them
PROBE_SHARE = 0.2  # of the capacity


@dataclass(frozen=True)
class Plan:
    """items: sessions in one call; 1: the unary Step. sessions: over all calls. clients: connections.
    capacity_s, overload_s, after_s: length of the phases. deadline_s: of every call. times: of capacity.
    held_back: calls beyond the server's limit for a connection are refused by their own client."""

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


@dataclass
class Phase:
    """Counted in steps. *_ms: [median, 99 %, longest] from sending to the answer."""

    seconds: float = 0.0
    sent: int = 0
    good: int = 0
    refused: int = 0
    advised: int = 0  # of those refused, with a delay for the next try
    at_client: int = 0  # refused by the client's own transport: the server never saw them
    late: int = 0
    other: dict[str, int] = field(default_factory=dict)
    good_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    slowest_turn_ms: float = 0.0  # by which the generator itself was behind


@dataclass
class Answer:
    sent_at: float
    ms: float
    good: int = 0
    refused: int = 0
    advised: int = 0
    at_client: int = 0
    late: int = 0
    other: str = ""


class Pressure:
    def __init__(self, channels: list[grpc.aio.Channel], plan: Plan) -> None:
        self._plan = plan
        method = "StepBatch" if plan.items > 1 else "Step"
        self._calls = [channel.unary_unary(SERVICE + method, bytes, bytes) for channel in channels]
        names = [f"load-{n}" for n in range(plan.sessions)]
        self._requests = [_request(names[at : at + plan.items]) for at in range(0, len(names), plan.items)]
        self._next = 0
        self._answers: list[Answer] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def closed(self, seconds: float) -> Phase:
        """`flows` calls under way at any time: what the server can do."""
        self._answers = []
        started = time.perf_counter()

        async def flow() -> None:
            while time.perf_counter() < started + seconds:
                await self._send(30.0)

        await asyncio.gather(*(flow() for _ in range(self._plan.flows)))
        return self._phase(time.perf_counter() - started)

    async def open(self, steps_per_second: float, seconds: float) -> Phase:
        """Sends at that rate, whatever comes back; then waits for the answers."""
        self._answers = []
        started = time.perf_counter()
        sent, slowest = 0, 0.0
        while (now := time.perf_counter() - started) < seconds:
            due = int(now * steps_per_second / self._plan.items) - sent
            for _ in range(due):
                task = asyncio.create_task(self._send(self._plan.deadline_s))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            sent += due
            await asyncio.sleep(TURN_S)
            slowest = max(slowest, time.perf_counter() - started - now - TURN_S)
        measured = time.perf_counter() - started
        while self._under_way:
            await asyncio.wait(self._under_way)
        phase = self._phase(measured)
        phase.slowest_turn_ms = 1000 * slowest
        return phase

    async def recovery(self, steps_per_second: float, limit_ms: float, seconds: float) -> tuple[Phase, float]:
        """A light load, and the seconds after which every answer to it came within `limit_ms`."""
        started = time.perf_counter()
        phase = await self.open(steps_per_second, seconds)
        slow = [a.sent_at - started for a in self._answers if a.ms > limit_ms or not a.good]
        return phase, max(slow, default=0.0)

    async def _send(self, timeout: float) -> None:
        number, self._next = self._next, self._next + 1
        call = self._calls[number % len(self._calls)]
        request = self._requests[number % len(self._requests)]
        items, sent_at = self._plan.items, time.perf_counter()
        answer = Answer(sent_at, 0.0)
        try:
            data = await call(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                answer.refused, answer.advised = items, items * _has_advice(error)
                answer.at_client = items * (BEYOND_LIMIT in (error.details() or ""))
            elif error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
                answer.late = items  # a server that sees the deadline first resets the call
            else:
                answer.other = f"{error.code().name}: {error.details()}"
        else:
            self._read(data, answer)
        answer.ms = 1000 * (time.perf_counter() - sent_at)
        self._answers.append(answer)

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

    def _phase(self, seconds: float) -> Phase:
        phase = Phase(seconds=seconds, sent=len(self._answers) * self._plan.items)
        for answer in self._answers:
            phase.good += answer.good
            phase.refused += answer.refused
            phase.advised += answer.advised
            phase.at_client += answer.at_client
            phase.late += answer.late
            if answer.other:
                phase.other[answer.other[:100]] = phase.other.get(answer.other[:100], 0) + 1
        phase.good_ms = _spread([a.ms for a in self._answers if a.good])
        phase.refused_ms = _spread([a.ms for a in self._answers if a.refused and not a.good])
        return phase


async def press(target: str, plan: Plan) -> dict[str, Any]:
    options = CHANNEL + HELD_BACK if plan.held_back else CHANNEL
    channels = [grpc.aio.insecure_channel(target, options) for _ in range(plan.clients)]
    try:
        pressure = Pressure(channels, plan)
        await pressure.closed(plan.capacity_s / 2)  # every session hot, every connection up
        capacity = await pressure.closed(plan.capacity_s)
        peak = capacity.good / capacity.seconds
        calm, _ = await pressure.recovery(PROBE_SHARE * peak, 0.0, plan.after_s / 2)
        print("overload begins", flush=True)
        over = await pressure.open(plan.times * peak, plan.overload_s)
        limit_ms = 3 * calm.good_ms[1] + 20
        after, recovery_s = await pressure.recovery(PROBE_SHARE * peak, limit_ms, plan.after_s)
        again = await pressure.closed(plan.capacity_s)
        capacity = max(capacity, again, key=lambda phase: phase.good / phase.seconds)
    finally:
        for channel in channels:
            await channel.close(None)
    phases = {"capacity": capacity, "calm": calm, "overload": over, "after": after}
    return {
        "recovery_s": recovery_s,
        "recovery_limit_ms": limit_ms,
        **{name: asdict(phase) for name, phase in phases.items()},
    }


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


def _spread(values: list[float]) -> list[float]:
    if not values:
        return []
    return [round(float(value), 2) for value in np.percentile(values, (50, 99, 100))]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(press(sys.argv[1], Plan(**json.loads(sys.argv[2]))))))
