"""`make bench-watching`: what a page that watches a session costs a server that gets 100 steps a second.

Rounds with and without a watch take turns: the difference in CPU time is the cost of the watch. A third part has HTTP
off, which shows what an unwatched HTTP listener costs.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import aiohttp
import numpy as np
from cellkeeper import AsyncClient

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .cores import cpu_seconds
from .machine import machine
from .models import MODELS
from .results import write
from .turns import rotated
from .weights import write_model

PARTS = ("front off", "front on", "watched")
SESSION = "watched"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.watching", description=__doc__)
    parser.add_argument("--model", default="2x128", choices=list(MODELS))
    parser.add_argument("--hz", type=int, default=5, help="readings per second of the watch")
    parser.add_argument("--rate", type=float, default=100.0, help="steps a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path, default=Path("out/bench-watching.json"))
    options = parser.parse_args()
    found, updates = asyncio.run(measure(options.model, options.hz, options.rate, options.rounds, options.seconds))
    shares = {part: [seconds / options.seconds for seconds in found[part]] for part in PARTS}
    costs = [watched - unwatched for watched, unwatched in zip(shares["watched"], shares["front on"], strict=True)]
    print("| | share of a core | spread |\n|---|---:|---|")
    for name, values in [*shares.items(), ("the watch alone", costs)]:
        print(f"| {name} | {statistics.median(values):.2%} | {min(values):.2%} to {max(values):.2%} |")
    watched_s = options.rounds * options.seconds
    print(f"{len(updates) / watched_s:.1f} updates a second, up to step {max(updates, default=0)}")
    result = {"machine": machine(), "options": {**vars(options), "json": str(options.json)}, "cpu_share": shares}
    write(options.json, result)


async def measure(
    model: str, hz: int, rate: float, rounds: int, seconds: float
) -> tuple[dict[str, list[float]], list[int]]:
    """Returns the server's CPU seconds in each round, by part; and the step in each update."""
    updates: list[int] = []
    found: dict[str, list[float]] = {part: [] for part in PARTS}
    with tempfile.TemporaryDirectory(prefix="cellkeeper-watching-") as folder, ExitStack() as running:
        bundle = write_model(Path(folder), model)
        store = running.enter_context(RedisServer())
        servers = {
            name: running.enter_context(ServerProcess([bundle], store.url, words))
            for name, words in (("off", []), ("on", ["--http-listen", "127.0.0.1:0"]))
        }
        url = servers["on"].wait_for(r"http on (\S+)")
        for number in range(rounds):
            for part in rotated(PARTS, number):
                server = servers["off" if part == "front off" else "on"]
                async with AsyncExitStack() as stack:
                    if part == "watched":
                        http = await stack.enter_async_context(aiohttp.ClientSession())
                        path = f"v1/models/{model}/sessions/{SESSION}/watch?hz={hz}"
                        socket = await stack.enter_async_context(http.ws_connect(url + path))
                        reading = asyncio.create_task(_read(socket, updates))
                        stack.callback(reading.cancel)
                    found[part].append(await _round(server, model, rate, seconds))
                    if part == "watched" and reading.done():
                        reading.result()
                        raise RuntimeError("the watch ended unexpectedly")
    return found, updates


async def _round(server: ServerProcess, model: str, rate: float, seconds: float) -> float:
    """Steps the session at that rate. Returns the CPU seconds that the server used."""
    async with AsyncClient(server.target) as client:
        session = await client.open(SESSION, model=model)
        sample = np.zeros(MODELS[model].features, np.float32)
        for _ in range(20):  # caches the session, and warms the connection
            await session.step(sample)
        before, began, steps = cpu_seconds(server.pid), time.monotonic(), 0
        while steps < rate * seconds:
            await asyncio.sleep(max(began + steps / rate - time.monotonic(), 0))
            await session.step(sample)
            steps += 1
        return cpu_seconds(server.pid) - before


async def _read(socket: aiohttp.ClientWebSocketResponse, updates: list[int]) -> None:
    """Records the step in every update, once the session exists."""
    async for message in socket:
        found = message.json()
        if "error" in found and found["error"]["reason"] != "SESSION_NOT_FOUND":
            raise RuntimeError(message.data)
        updates.append(int(found["position"]["step"]) if "position" in found else 0)


if __name__ == "__main__":
    main()
