"""Measures what replacing servers and models costs clients meanwhile.

python -m tests.integration.lifecycle restart [--rounds N] [--store redis|sqlite]
python -m tests.integration.lifecycle reload [--hidden N] [--times N]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import numpy as np
from cellkeeper.aio import AsyncClient

from testing.bundles import make_bundle
from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .live import Live
from .load import Load
from .rolling import roll


async def restart(arguments: argparse.Namespace, folder: Path) -> None:
    bundle = make_bundle(folder / "m", name="m", hidden_size=48, num_layers=2)
    with ExitStack() as stack:
        if arguments.store == "redis":
            store = stack.enter_context(RedisServer()).url
        else:
            store = f"sqlite:{folder / 'sessions.db'}"
        servers = [ServerProcess([bundle], store, ["--device", "cpu"]) for _ in range(3)]
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(stack.enter_context, servers))
        verdict = await roll(servers, bundle, arguments.rounds, waiting=48, pipelining=16)
    print("server  stop s  start s  away when back  all home after s")
    for number, turn in enumerate(verdict.turns):
        print(
            f"{number % 3 + 1:6}  {turn.stop_seconds:6.2f}  {turn.start_seconds:7.2f}  {turn.away:14.0%}  "
            f"{turn.home_seconds:16.2f}"
        )
    print(
        f"{verdict.sessions} sessions, {verdict.steps} steps, all exact; errors seen by callers: 0; chunks sent again: "
        f"{verdict.retries}; longest wait of a session: {verdict.gap_seconds:.2f} s"
    )


async def reload(arguments: argparse.Namespace, folder: Path) -> None:
    live = Live(folder, hidden_size=arguments.hidden)
    live.put(live.version(0))
    seeds = range(arguments.times + 1)
    engines = live.engines(*seeds)
    with ServerProcess([live.path], f"sqlite:{folder / 's.db'}", ["--keep-versions", "100"]) as server:
        async with AsyncClient(server.target) as client:
            load = Load(client, waiting=48, pipelining=0, features=3)
            async with load:
                spans, before = [], rss_mib(server.pid)
                await asyncio.sleep(5)
                for seed in seeds[1:]:
                    live.put(live.version(seed))
                    started = monotonic()
                    server.send_signal(signal.SIGHUP)
                    await asyncio.to_thread(server.wait_for, "reload: done")
                    spans.append((started, monotonic()))
                    await asyncio.sleep(2)
                after = rss_mib(server.pid)
            steps = await load.check(engines)
    during = [took for sent, took in load.latencies if any(a <= sent <= b for a, b in spans)]
    quiet = [took for sent, took in load.latencies if all(not a - took <= sent <= b for a, b in spans)]
    for name, some in (("between reloads", quiet), ("during a reload", during)):
        p50, p99, worst = (1000 * float(np.quantile(some, share)) for share in (0.5, 0.99, 1.0))
        print(f"{name}: {len(some)} chunks; p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {worst:.0f} ms")
    took = [b - a for a, b in spans]
    print(f"{len(took)} reloads of a 2x{arguments.hidden} LSTM, {min(took):.1f} to {max(took):.1f} s each")
    print(f"resident memory: {before:.0f} MiB before, {after:.0f} MiB with {len(engines)} versions")
    print(f"{len(load.stories)} sessions, {steps} steps, all exact; errors seen by callers: 0")


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.lifecycle")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("restart")
    one.add_argument("--rounds", type=int, default=2)
    one.add_argument("--store", choices=("redis", "sqlite"), default="redis")
    two = commands.add_parser("reload")
    two.add_argument("--hidden", type=int, default=128)
    two.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="cellkeeper-lifecycle-") as folder:
        asyncio.run((restart if arguments.command == "restart" else reload)(arguments, Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
