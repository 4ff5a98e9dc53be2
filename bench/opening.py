"""`make bench-opening`: sessions opened a second, many in one call (OpenMany) and one by one (Open), on a warm server.

"new" sessions are created. "existing" ones were created by an earlier process of the server, so that none of them is
cached; the memory store loses its sessions with the process, so there they are cached. The two ways take turns, and
every round has its own sessions.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_proto.v1.cellkeeper_pb2_grpc import CellkeeperStub

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .cores import cpu_seconds
from .machine import machine
from .models import MAIN, MODELS
from .results import add_json, numbers, write
from .weights import write_model

STORES = ("memory", "sqlite", "redis")
COUNTS = (1000, 10_000)
ITEMS = 1000  # in one OpenMany
IN_FLIGHT = 64  # single Opens
TIMEOUT_S = 60.0
KINDS = ("new", "existing")
WAYS = ("OpenMany", "Open")

Figures = dict[str, float]
"""Figures of one load: for each way, sessions per second and the server's CPU microseconds per session."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.opening", description=__doc__)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--counts", type=numbers, default=COUNTS, help="sessions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=sorted(MODELS), default=MAIN)
    add_json(parser, "bench-opening")
    options = parser.parse_args()
    found: dict[str, Figures] = {}
    for store in options.stores.split(","):
        found |= measure(store, options.counts, options.rounds, options.model)
    text = table(found)
    print(text)
    write(options.json, {"machine": machine(), "figures": found}, text)


def measure(store: str, counts: Sequence[int], rounds: int, model: str) -> dict[str, Figures]:
    """Returns the medians over the rounds, by load."""
    taken: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="cellkeeper-opening-") as folder, ExitStack() as running:
        bundle = write_model(Path(folder), model)
        url = f"{store}:" if store == "memory" else f"sqlite:{folder}/sessions.db"
        if store == "redis":
            url = running.enter_context(RedisServer({"appendfsync": "everysec"})).url
        server = running.enter_context(ServerProcess([bundle], url))
        asyncio.run(warm(server.target))
        for turn in range(rounds):
            for count in counts:
                names = {way: [os.urandom(8).hex() for _ in range(count)] for way in WAYS}
                for kind in KINDS:
                    if kind == "existing" and store != "memory":  # the memory store loses its sessions
                        server.stop()
                        server.restart()
                        asyncio.run(warm(server.target))
                    figures: Figures = {}
                    for way in WAYS if turn % 2 == 0 else WAYS[::-1]:
                        spent = cpu_seconds(server.pid)
                        seconds = asyncio.run(timed(server.target, way, names[way], created=kind == "new"))
                        figures[f"{way} per s"] = count / seconds
                        figures[f"{way} CPU us"] = (cpu_seconds(server.pid) - spent) / count * 1e6
                    figures["ratio"] = figures["OpenMany per s"] / figures["Open per s"]
                    taken.setdefault(f"{store}, {count} {kind}", []).append(figures)
    return {
        load: {name: statistics.median(one[name] for one in several) for name in several[0]}
        for load, several in taken.items()
    }


async def warm(target: str) -> None:
    """Makes the server do what it does only the first time."""
    for way in WAYS:
        await timed(target, way, [os.urandom(8).hex() for _ in range(500)], created=True)


async def timed(target: str, way: str, names: Sequence[str], *, created: bool) -> float:
    """Returns the seconds from the first call to the last answer. Raises RuntimeError for a wrong `created`."""
    async with stub_of(target) as stub:
        await stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S)  # makes the connection
        started = time.perf_counter()
        replies = await (open_many(stub, names) if way == "OpenMany" else open_each(stub, names))
        seconds = time.perf_counter() - started
    if len(replies) != len(names) or any(reply.created is not created for reply in replies):
        raise RuntimeError(f"{way}: not every session was opened with created = {created}")
    return seconds


async def open_many(stub: Any, names: Sequence[str]) -> list[pb.OpenResponse]:
    """Opens sessions with one call after another."""
    replies: list[pb.OpenResponse] = []
    for start in range(0, len(names), ITEMS):
        items = [
            pb.OpenManyRequest.Item(session=name, request_id=os.urandom(16)) for name in names[start : start + ITEMS]
        ]
        reply = await stub.OpenMany(pb.OpenManyRequest(items=items), timeout=TIMEOUT_S)
        replies += [result.opened for result in reply.results if not result.HasField("error")]
    return replies


async def open_each(stub: Any, names: Sequence[str]) -> list[pb.OpenResponse]:
    """Opens sessions with IN_FLIGHT calls at a time."""
    replies: list[pb.OpenResponse] = []
    left = iter(names)

    async def flow() -> None:
        for name in left:
            request = pb.OpenRequest(session=name, request_id=os.urandom(16))
            replies.append(await stub.Open(request, timeout=TIMEOUT_S))

    await asyncio.gather(*[flow() for _ in range(IN_FLIGHT)])
    return replies


@asynccontextmanager
async def stub_of(target: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield CellkeeperStub(channel)  # type: ignore[no-untyped-call]


def table(found: dict[str, Figures]) -> str:
    lines = [
        f"| sessions | OpenMany: s | per s | server CPU, us each | Open, {IN_FLIGHT} in flight: per s "
        "| server CPU, us each | ratio of per s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for load, figures in found.items():
        count = int(load.split()[1])
        many, each = figures["OpenMany per s"], figures["Open per s"]
        cpu = figures["OpenMany CPU us"], figures["Open CPU us"]
        lines.append(
            f"| {load} | {count / many:.2f} | {many:,.0f} | {cpu[0]:.0f} | {each:,.0f} | {cpu[1]:.0f} "
            f"| {figures['ratio']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
