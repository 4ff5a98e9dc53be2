"""The attacks, for a moment, without checking times: `make attack` runs and measures them for longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperServicer, add_CellkeeperServicer_to_server

from testing.server_process import ServerProcess

from .attacker import KINDS, Canary, endure, house, plans

SECONDS = 1.0
STOP_S = 0.4
BYTES_PER_SECOND = 400_000_000  # more than a network line carries: it is only for a moment


class StopsOnce(CellkeeperServicer):
    """Answers at once, but stops for STOP_S with its fifth step."""

    def __init__(self) -> None:
        self.steps = 0

    async def Step(self, request: pb.StepRequest, context: Any) -> pb.StepResponse:
        self.steps += 1
        if self.steps == 5:
            time.sleep(STOP_S)  # noqa: ASYNC251 - the fault itself: the whole server stops
        return pb.StepResponse()


async def test_the_canary_notices_a_server_that_stops_once() -> None:
    """All the steps that were due meanwhile are late, and not only the one that it was busy with."""
    server, servicer = grpc.aio.server(), StopsOnce()
    add_CellkeeperServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    canary = Canary(f"127.0.0.1:{port}", "")
    try:
        times_ms = await canary.times_ms(asyncio.ensure_future(asyncio.sleep(3 * STOP_S)))
    finally:
        await canary.close()
        await server.stop(None)
    assert len(times_ms) == servicer.steps
    assert sum(each_ms > 1000 * STOP_S / 2 for each_ms in times_ms) >= 3


@pytest.fixture(scope="module", params=["open", "tokens"])
def place(
    request: pytest.FixtureRequest, counting_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, str, str]]:
    with house(tmp_path_factory.mktemp("house"), counting_model, with_tokens=request.param == "tokens") as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_costs_nobody_else_much(place: tuple[ServerProcess, str, str], kind: str) -> None:
    server, canary, attacker = place
    (plan,) = plans([kind], attacker, SECONDS, public=not attacker)
    outcome = asyncio.run(endure(server, canary, replace(plan, bytes_per_second=BYTES_PER_SECOND)))
    assert not outcome.harm
    sent = outcome.sent
    assert max(sent["calls"], sent["pings"]) > 100  # it did attack
    assert (kind not in ("slow", "half-frame")) or sent["bytes"] > 1 << 20
