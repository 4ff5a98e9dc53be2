"""Stops each server of a fleet with SIGTERM and restarts it, one after another, under load."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from cellkeeper._transport.endpoints import rendezvous
from cellkeeper.aio import AsyncClient
from cellkeeper_service.engine.load import load_engine

from testing.server_process import ServerProcess

from .load import Load, Story, until


@dataclass(frozen=True)
class Turn:
    """One server's restart.

    stop_seconds: from SIGTERM to the end of the process. start_seconds: until it serves again. away: the share of
    sessions that were not at their home server when it served again. home_seconds: from then until all were.
    """

    stop_seconds: float
    start_seconds: float
    away: float
    home_seconds: float


@dataclass(frozen=True)
class Verdict:
    """turns: those of all rounds. steps: answered and compared. gap_seconds: the longest wait of any session."""

    turns: list[Turn]
    steps: int
    sessions: int
    retries: int
    gap_seconds: float


async def roll(servers: Sequence[ServerProcess], bundle: Path, rounds: int, waiting: int, pipelining: int) -> Verdict:
    """Raises AssertionError if a caller saw an error, a bit differs, or sessions do not return to their servers."""
    engine = load_engine(bundle, "cpu")
    engines = {engine.spec.fingerprint: engine}
    async with AsyncClient([server.target for server in servers]) as client:
        load = Load(client, waiting=waiting, pipelining=pipelining, features=engine.spec.input.shape[0])
        async with load:
            lasting = load.stories[: waiting + pipelining]
            turns = [await _turn(server, servers, load, lasting) for server in [*servers] * rounds]
        steps = await load.check(engines)
    gap = max(story.gap_seconds for story in load.stories)
    return Verdict(turns, steps, len(load.stories), client.counters.retries, gap)


async def _turn(server: ServerProcess, servers: Sequence[ServerProcess], load: Load, lasting: Sequence[Story]) -> Turn:
    started = monotonic()
    status = await asyncio.to_thread(server.stop)
    if status != 0:
        raise AssertionError(f"a server ended with status {status}: {server.output()}")
    stopped = monotonic()
    await load.until_all_moved()  # without this server
    restarting = monotonic()
    await asyncio.to_thread(server.restart)
    back = monotonic()
    away = away_from_home(lasting, servers)
    await until(lambda: bool(load.errors) or not away_from_home(lasting, servers))
    home = monotonic()
    await load.until_all_moved()
    return Turn(stopped - started, back - restarting, len(away) / len(lasting), home - back)


def away_from_home(stories: Sequence[Story], servers: Sequence[ServerProcess]) -> list[str]:
    """Returns the sessions whose latest step did not go to their home server, the first in their order."""
    targets = [server.target for server in servers]
    return [story.name for story in stories if _place(story) != rendezvous(story.name, targets)[0]]


def _place(story: Story) -> str:
    return str(getattr(story.opened._sender.endpoint, "target", ""))
