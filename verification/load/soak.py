"""Applies a mixed load for a long time: nothing may grow or be left over, and every answer must be right.

python -m verification.load.soak --minutes 30 --store sqlite
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testing.bundles import counting_bundle
from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .mix import FEATURES, MODEL, Mix, Tally
from .report import finish
from .vitals import LAZY_FDS, LAZY_THREADS, MIB, Vitals, fd_count, flatness, folder_bytes, rss_bytes, thread_count

ARENA_SLOTS = 512  # 1 MiB of two states of 1 KiB each: fewer than sessions
OPTIONS = ["--arena-mib", "1", "--max-batch", "64"]
SETTLE_S = 20.0
FLAT_FROM_S = 120.0  # shorter runs are still filling caches; their growth proves nothing
STORE_RESTARTS = 5
EXCUSED_AFTER_RESTART_S = 40.0
RSS_SHARE, RSS_SLACK = 0.02, 4 * MIB
STORE_SHARE, STORE_SLACK = 0.10, 2 * MIB


@dataclass
class Stand:
    """A server with its store."""

    server: ServerProcess
    store_bytes: Callable[[], int]
    redis: RedisServer | None


@contextmanager
def stand(store: str) -> Iterator[Stand]:
    with tempfile.TemporaryDirectory(prefix="cellkeeper-soak-") as name:
        folder = Path(name)
        bundle = counting_bundle(folder / "bundle", name=MODEL, features=FEATURES)
        if store == "redis":
            with RedisServer() as redis, ServerProcess([bundle], redis.url, OPTIONS) as server:
                yield Stand(server, lambda: _used_memory(redis), redis)
        else:
            (folder / "store").mkdir()
            with ServerProcess([bundle], f"sqlite:{folder / 'store' / 'sessions.db'}", OPTIONS) as server:
                yield Stand(server, lambda: folder_bytes(folder / "store"), None)


async def soak(
    store: str, seconds: float, *, seed: int, residents: int = 700, pause_s: float = 12.0, sample_s: float = 5.0
) -> tuple[dict[str, Any], list[str]]:
    """Runs the load. Returns the figures and the violations."""
    with stand(store) as place:
        await _load(place, min(seconds / 4, 10.0), seed + 1, residents, 0.1, Tally(), 1.0)  # each kind of work once
        await _until_idle(place)
        baseline = _vitals(place, 0.0)
        tally = Tally()
        mix, samples = await _load(place, seconds, seed, residents, pause_s, tally, sample_s)
        idle = await _until_idle(place)
        after = await _until_back(place, baseline)
        evictions = place.server.metric("cellkeeper_evictions_total")
        violations = list(tally.violations)
        if not idle:
            violations.append(f"queue depth is {after.queue_depth} after the load has ended, expected 0")
        for what, was, is_now, lazy in (
            ("fds", baseline.fds, after.fds, LAZY_FDS),
            ("threads", baseline.threads, after.threads, LAZY_THREADS),
        ):
            if is_now > was + lazy:
                violations.append(f"{what}: {is_now} after the load has ended, {was} before it began")
        if "Traceback" in place.server.output():
            violations.append(f"the server's log has a traceback: {place.server.output()[-2000:]}")
        if mix.canary_steps == 0 or tally.done["steps"] == 0:
            violations.append("nothing was done")
        flats = [
            flatness("rss", samples, lambda sample: sample.rss_bytes, RSS_SHARE, RSS_SLACK),
            flatness("store", samples, lambda sample: sample.store_bytes, STORE_SHARE, STORE_SLACK),
            flatness("fds", samples, lambda sample: sample.fds, 0.0, 8.0),
            flatness("threads", samples, lambda sample: sample.threads, 0.0, 2.0),
        ]
        violations += [
            f"{flat.name}: {flat.middle:.0f} in the second third, {flat.last:.0f} in the last"
            for flat in flats
            if flat.grew and seconds >= FLAT_FROM_S
        ]
        if max((sample.hot for sample in samples), default=0) > ARENA_SLOTS:
            violations.append(f"more than {ARENA_SLOTS} sessions are hot")
        figures: dict[str, Any] = {
            "store": store,
            "seed": seed,
            "seconds": seconds,
            "samples": len(samples),
            "steps": tally.done["steps"],
            "canary_steps": mix.canary_steps,
            "done": dict(tally.done),
            "refused": dict(tally.refused),
            "evictions": int(evictions),
            "store_restarts": tally.done["store restarts"],
            **{f"{flat.name}_second_third": flat.middle for flat in flats},
            **{f"{flat.name}_last_third": flat.last for flat in flats},
            **{f"{flat.name}_allowed_growth": flat.allowed for flat in flats},
            "flatness_judged": seconds >= FLAT_FROM_S,
            "fds_before_after": [baseline.fds, after.fds],
            "threads_before_after": [baseline.threads, after.threads],
            "rss_mib_before_peak_after": [
                round(size / MIB, 1)
                for size in (baseline.rss_bytes, max(sample.rss_bytes for sample in samples), after.rss_bytes)
            ],
            "queue_depth_peak": max((sample.queue_depth for sample in samples), default=0),
            "queue_depth_after": after.queue_depth,
        }
        return figures, violations


async def _load(
    place: Stand, seconds: float, seed: int, residents: int, pause_s: float, tally: Tally, sample_s: float
) -> tuple[Mix, list[Vitals]]:
    mix = Mix(place.server.target, tally, seed, residents, pause_s)
    work = asyncio.create_task(mix.run())
    samples: list[Vitals] = []
    started = time.monotonic()
    next_restart = seconds / (STORE_RESTARTS + 1) if place.redis and seconds >= FLAT_FROM_S else seconds * 2
    try:
        while (now := time.monotonic() - started) < seconds and not work.done():
            await asyncio.sleep(min(sample_s, seconds - now))
            if place.redis and now > next_restart:
                next_restart += seconds / (STORE_RESTARTS + 1)
                tally.excused_until = time.monotonic() + EXCUSED_AFTER_RESTART_S
                await asyncio.to_thread(place.redis.stop)
                await asyncio.to_thread(place.redis.restart)
                tally.done["store restarts"] += 1
            samples.append(await asyncio.to_thread(_vitals, place, time.monotonic() - started))
    finally:
        mix.stopping.set()
        await work
    return mix, samples


def _vitals(place: Stand, at: float) -> Vitals:
    server, pid = place.server, place.server.pid
    queue_depth, hot = server.metric("cellkeeper_queue_depth"), server.metric("cellkeeper_hot_sessions")
    return Vitals(at, rss_bytes(pid), fd_count(pid), thread_count(pid), place.store_bytes(), int(queue_depth), int(hot))


async def _until_idle(place: Stand) -> bool:
    """Returns True if the queue was empty within SETTLE_S."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        if await asyncio.to_thread(place.server.metric, "cellkeeper_queue_depth") == 0:
            return True
        await asyncio.sleep(0.1)
    return False


async def _until_back(place: Stand, baseline: Vitals) -> Vitals:
    """Returns the vitals once nothing is left over, or those after SETTLE_S."""
    until = time.monotonic() + SETTLE_S
    while True:
        vitals = await asyncio.to_thread(_vitals, place, 0.0)
        if (vitals.fds <= baseline.fds and vitals.threads <= baseline.threads) or time.monotonic() > until:
            return vitals
        await asyncio.sleep(0.2)


def _used_memory(redis: RedisServer) -> int:
    with redis.client() as client:
        memory: Any = client.info("memory")
        return int(memory["used_memory"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m verification.load.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    words = parser.parse_args()
    print(f"seed {words.seed}", flush=True)
    figures, violations = asyncio.run(soak(words.store, words.minutes * 60, seed=words.seed))
    return finish(figures, violations)


if __name__ == "__main__":
    sys.exit(main())
