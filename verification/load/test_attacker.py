"""The attacks, for a moment, without checking times: `make attack` runs and measures them for longer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testing.server_process import ServerProcess

from .attacker import KINDS, endure, house, plans

SECONDS = 1.0
BYTES_PER_SECOND = 400_000_000  # more than a network line carries: it is only for a moment


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
