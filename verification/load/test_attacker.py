"""The attacks, each of a fixed amount, without checking times: `make attack` runs and measures them for longer."""

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

from .attacker import KINDS, REQUEST_BYTES, Canary, endure, house, plans

STOP_S = 0.4
LONGEST_S = 100.0
CALM_S = 0.5
HELD_BYTES = 3 * REQUEST_BYTES // 2
MOST_BYTES = 4 * HELD_BYTES
BYTES_PER_SECOND = 400_000_000  # more than a network line carries: it is only for a moment
BYTES = {"most_bytes": MOST_BYTES, "most_held_bytes": HELD_BYTES, "bytes_per_second": BYTES_PER_SECOND}
AMOUNTS: dict[str, dict[str, Any]] = {
    "half-open": {"most_calls": 1400},  # more than the server lets connections have at once
    "slow": BYTES,
    "half-frame": {**BYTES, "streams": 16, "after_reply": True},
    "reset": {"most_calls": 2500},
    "ping": {"most_calls": 5000},
}
"""By attack. An amount, since in a fixed time a busy machine may make no attack, or may not run the server.

The bytes are sent only as far as open streams hold HELD_BYTES, which is more than the server lets slow calls or half
frames keep: the rest of MOST_BYTES is sent only if the server ends some. So the server's growth does not depend on how
much arrives before a busy machine runs it. A half frame follows the reply to the frame before it, since the server does
not count what it received with that.

GROWTH_BYTES has room for HELD_BYTES twice, because malloc keeps some of what was freed, and for the calls themselves,
as for half-open ones.
"""


class StopsOnce(CellkeeperServicer):
    """Answers at once, but stops for STOP_S with its fifth step. `enough` is done with its twentieth."""

    def __init__(self) -> None:
        self.steps = 0
        self.enough = asyncio.get_running_loop().create_future()

    async def Step(self, request: pb.StepRequest, context: Any) -> pb.StepResponse:
        self.steps += 1
        if self.steps == 5:
            time.sleep(STOP_S)  # noqa: ASYNC251 - the fault itself: the whole server stops
        if self.steps == 20:
            self.enough.set_result(None)
        return pb.StepResponse()


async def test_the_canary_notices_a_server_that_stops_once() -> None:
    """All the steps that were due meanwhile are late, and not only the one that it was busy with."""
    server, servicer = grpc.aio.server(), StopsOnce()
    add_CellkeeperServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    canary = Canary(f"127.0.0.1:{port}", "")
    try:
        times_ms = await canary.times_ms(servicer.enough)
    finally:
        await canary.close()
        await server.stop(None)
    assert len(times_ms) == servicer.steps
    assert sum(each_ms > 1000 * STOP_S / 2 for each_ms in times_ms) >= 3


@pytest.fixture(scope="module", params=["open", "tokens"])
def place(
    request: pytest.FixtureRequest, counting_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, str, str]]:
    """A server that ends a call whose message does not arrive only because there are too many."""
    patient = ["--message-timeout-ms", str(int(2000 * LONGEST_S))]
    folder = tmp_path_factory.mktemp("house")
    with house(folder, counting_model, with_tokens=request.param == "tokens", options=patient) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_costs_nobody_else_much(place: tuple[ServerProcess, str, str], kind: str) -> None:
    server, canary, attacker = place
    (plan,) = plans([kind], attacker, LONGEST_S, public=not attacker)
    plan = replace(plan, **AMOUNTS[kind])
    outcome = asyncio.run(endure(server, canary, plan, CALM_S))
    assert not outcome.harm
    sent = outcome.sent
    assert max(sent["calls"], sent["pings"]) > 0.9 * plan.most_calls
    assert sent["bytes"] >= 0.9 * plan.most_bytes
