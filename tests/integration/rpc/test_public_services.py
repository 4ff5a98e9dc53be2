"""Health and reflection answer everybody, so the number of their calls is limited. A call too many is told why."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from cellkeeper_service.rpc.health import MAX_REFLECTIONS, MAX_WATCHES
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from testing.server_process import ServerProcess

from .calls import from_status

TIMEOUT_S = 60.0
A_CONNECTION = 100  # calls on one connection, fewer than it may have
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
LIST = reflection_pb2.ServerReflectionRequest(list_services="")


def watch(channel: grpc.Channel, until: queue.SimpleQueue[None]) -> Iterator[Any]:
    found: Iterator[Any] = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service=""), timeout=TIMEOUT_S
    )
    return found


def reflect(channel: grpc.Channel, until: queue.SimpleQueue[None]) -> Iterator[Any]:
    def requests() -> Iterator[Any]:
        yield LIST
        until.get()

    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    found: Iterator[Any] = stub.ServerReflectionInfo(requests(), timeout=TIMEOUT_S)
    return found


@pytest.mark.parametrize(
    ("call", "most", "text"),
    [
        (watch, MAX_WATCHES, f"{MAX_WATCHES} watches are open, the maximum"),
        (reflect, MAX_REFLECTIONS, f"{MAX_REFLECTIONS} reflection calls are open, the maximum"),
    ],
    ids=["watches", "reflections"],
)
def test_a_call_too_many_is_told_why(
    served: ServerProcess, call: Callable[[grpc.Channel, queue.SimpleQueue[None]], Iterator[Any]], most: int, text: str
) -> None:
    until: queue.SimpleQueue[None] = queue.SimpleQueue()
    with ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(served.target, OWN_CONNECTION))
            for _ in range(most // A_CONNECTION + 1)
        ]
        opened = [call(channels[number // A_CONNECTION], until) for number in range(most)]
        for one in opened:
            next(one)
        with pytest.raises(grpc.RpcError) as caught:
            next(call(channels[-1], until))
        result = from_status(caught.value)
        assert (result.code, result.reason, result.message) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL", text)
        assert result.retry_delay_ms > 0
        for _ in range(most + 1):
            until.put(None)
