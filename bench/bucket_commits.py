"""`make bench-buckets`: what the number of buckets in Redis keys costs a tick's commit on a cluster of 3 primaries.

A tick is sent as one script call for each bucket that its sessions are in, so more buckets mean more and shorter calls.
Each number of buckets has its own process, which runs the store's own code. They commit the same appends in turns to
one cluster. Other work on the machine affects wall times, CPU times hardly, and the ratios within a round even less.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import statistics
import sys
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection

from cellkeeper_service.store.redis import keys

from testing.redis_cluster import PRIMARIES, RedisCluster

from .cores import cpu_seconds
from .machine import machine
from .results import add_json, numbers, write

COUNTS = (128, 512, 1024, 4096)
SIZES = (1, 16, 64, 256, 1024)
ITEMS_A_TURN = 8192  # a turn has as many ticks as that takes, at most MAX_TICKS
MAX_TICKS = 200
STATE_BYTES, STEP_BYTES = 2048, 128
PARTS = ("wall", "store", "Redis")
Found = dict[str, dict[str, list[float]]]  # "COUNT SIZE" -> part -> microseconds per item, for each round


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bucket_commits", description=__doc__)
    parser.add_argument("--counts", type=numbers, default=COUNTS, help="numbers of buckets, separated by commas")
    parser.add_argument("--sizes", type=numbers, default=SIZES, help="sessions in a tick, separated by commas")
    parser.add_argument("--rounds", type=int, default=7)
    add_json(parser, "bench-buckets")
    options = parser.parse_args()
    found = measure(options.counts, options.sizes, options.rounds)
    text = table(found, options.counts, options.sizes)
    print(text)
    write(options.json, {"machine": machine(), "us_per_item": found}, text)


def measure(counts: tuple[int, ...], sizes: tuple[int, ...], rounds: int) -> Found:
    found: Found = {f"{count} {size}": {part: [] for part in PARTS} for count in counts for size in sizes}
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as running:
        cluster = running.enter_context(RedisCluster())
        pids = [node.pid for node in cluster.nodes[:PRIMARIES]]
        workers: dict[int, Connection] = {}
        for count in counts:
            workers[count], theirs = spawn.Pipe()
            process = spawn.Process(target=commit_in_turns, args=(theirs, cluster.url, count, max(sizes)))
            process.start()
            running.callback(process.join)
            running.callback(workers[count].send, None)
            workers[count].recv()  # its sessions are created
        for number in range(rounds):
            for size in sizes:
                for count in counts if number % 2 else counts[::-1]:
                    before = sum(map(cpu_seconds, pids))
                    workers[count].send(size)
                    items, wall, store = workers[count].recv()
                    spent = (wall, store, sum(map(cpu_seconds, pids)) - before)
                    for part, seconds in zip(PARTS, spent, strict=True):
                        found[f"{count} {size}"][part].append(seconds / items * 1e6)
    return found


def commit_in_turns(pipe: Connection, url: str, count: int, sessions: int) -> None:
    """Runs in a process with its own number of buckets, and ends when it is sent None."""
    if "cellkeeper_service.store.redis.slots" in sys.modules:
        raise RuntimeError("the store is imported already, with the number of buckets that it has")
    keys.BUCKETS, keys.bucket_of = count, lambda name: int(name[5 : name.index(b"}")])
    from cellkeeper_service.store.open import open_store

    from .clients.commit import Commits

    store = open_store(url)
    names = [f"session-{number}" for number in range(sessions)]
    commits = Commits(store, f"buckets-{count}", names, STEP_BYTES, STATE_BYTES)
    gc.freeze()
    pipe.send(None)
    while (size := pipe.recv()) is not None:
        ticks = max(1, min(MAX_TICKS, ITEMS_A_TURN // size))
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(ticks):
            commits.tick(size)
        pipe.send((ticks * size, time.perf_counter() - wall, time.process_time() - cpu))
    store.close()


def table(found: Found, counts: tuple[int, ...], sizes: tuple[int, ...]) -> str:
    """Returns median microseconds per item and, in brackets, the median ratio to the first number of buckets."""
    lines = [
        "| sessions in a tick | part | " + " | ".join(f"{count:,} buckets" for count in counts) + " |",
        "|---:|---|" + "---:|" * len(counts),
    ]
    for size in sizes:
        for part in PARTS:
            base = found[f"{counts[0]} {size}"][part]
            cells = []
            for count in counts:
                mine = found[f"{count} {size}"][part]
                ratio = statistics.median(one / other for one, other in zip(mine, base, strict=True))
                cells.append(f"{statistics.median(mine):.1f} ({ratio:.2f})")
            lines.append(f"| {size:,} | {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
