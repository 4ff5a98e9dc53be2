"""Two server processes on one store, and clients that send each positioned chunk to either or both.

Each chunk is applied exactly once, and the outputs equal an offline run bitwise.
"""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from testing.forked_server import ForkedServer
from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .crew import Crew, Habits, check_at_rest
from .models import counting_and_lstm
from .sequences import Model, make_sequences

OPTIONS = ("--device", "cpu", "--max-replay-steps", "16", "--store-timeout-ms", "300")
HABITS = Habits(most_steps=12, most_sessions=6, most_window=4, both=0.4, again=0.2)
CALL_TIMEOUT_S = 0.7
TIMEOUT_S = 300.0  # for what takes about ten seconds, if the machine does nothing else

pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)
STOPPED_S = 1.0


Kinds = list[tuple[Path, Model]]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    return counting_and_lstm(tmp_path_factory.mktemp("kinds"))


def fire(mishap: str) -> Any:
    """Marks a mishap for `make test-fire` only: others test the same code, and all of them would take too long."""
    return pytest.param(mishap, marks=pytest.mark.fire)


@pytest.mark.parametrize("mishap", [fire("none"), "kill", fire("zombie")])
async def test_on_one_sqlite_file(mishap: str, kinds: Kinds, seed: int, tmp_path: Path) -> None:
    servers = [make_server(kinds, f"sqlite:{tmp_path / 'store.db'}") for _ in range(2)]
    await drive(servers, None, mishap, kinds, seed)


@pytest.mark.parametrize("mishap", [fire("none"), fire("kill"), "zombie", fire("store killed"), fire("store stopped")])
async def test_on_one_redis(mishap: str, kinds: Kinds, seed: int, own_redis: RedisServer) -> None:
    servers = [make_server(kinds, own_redis.url) for _ in range(2)]
    await drive(servers, own_redis, mishap, kinds, seed)


def make_server(kinds: Kinds, store: str) -> ServerProcess:
    return ForkedServer([bundle for bundle, _ in kinds], store, OPTIONS)


async def drive(servers: list[ServerProcess], redis: RedisServer | None, mishap: str, kinds: Kinds, seed: int) -> None:
    draw = random.Random(seed)
    sequences = [sequence for _, model in kinds for sequence in make_sequences(model, 14, 250, draw)]
    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(server)
        crew = Crew([server.target for server in servers], sequences, HABITS, CALL_TIMEOUT_S)
        await crew.open_all(draw)
        trouble = asyncio.create_task(cause(mishap, servers, redis, crew, draw))
        await crew.work(6, draw, TIMEOUT_S)
        await trouble
        print(dict(crew.refusals), f"replayed: {crew.replayed}")
        for server in servers:
            await check_at_rest(server.target, sequences)
        assert crew.replayed > 0
        outcomes = {
            outcome: [server.metric("cellkeeper_commits_total", result=outcome) for server in servers]
            for outcome in ("conflict", "unknown")
        }
        print(outcomes)
        if mishap == "none":
            assert "UNAVAILABLE" not in crew.refusals
            assert min(outcomes["conflict"]) > 0
        elif mishap.startswith("store"):
            assert max(outcomes["unknown"]) > 0 or "STORE_UNAVAILABLE" in crew.refusals


async def cause(
    mishap: str, servers: list[ServerProcess], redis: RedisServer | None, crew: Crew, draw: random.Random
) -> None:
    """Causes the mishap three times: to a random server, or to the store."""
    marks = [(crew.reached(share), crew.reached(share + 0.1)) for share in (0.2, 0.45, 0.7)]
    for begin, end in marks:
        await begin.wait()
        server = draw.choice(servers)
        if mishap == "kill":
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
        elif mishap == "zombie":
            server.send_signal(signal.SIGSTOP)
            await passed(end)
            server.send_signal(signal.SIGCONT)
        elif mishap == "store killed" and redis is not None:
            await asyncio.to_thread(redis.kill)
            await asyncio.to_thread(redis.restart)
        elif mishap == "store stopped" and redis is not None:
            redis.pause()
            await passed(end)
            redis.wake()  # Redis now executes what was sent to it, long after the senders gave up


async def passed(mark: asyncio.Event) -> None:
    """Waits until the mark is reached, but at most STOPPED_S, because what is stopped may block everybody."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(mark.wait(), STOPPED_S)
