"""`make bench-million`: random steps of many more live sessions in a real Redis than the server keeps hot."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .client_process import ClientProcess
from .latencies import percentile_ms
from .load import Load
from .machine import machine
from .models import MODELS
from .results import add_json, say, write
from .weights import write_model

FRAMES, ITEMS = 2, 256
SAMPLED = 200
STEADY_SESSIONS, STEADY_SECONDS = 4096, 10.0
COUNTED = ("cellkeeper_loads_total", "cellkeeper_evictions_total", "cellkeeper_load_replayed_steps_total")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.million", description=__doc__)
    parser.add_argument("--sessions", type=int, default=int(os.environ.get("SESSIONS", "1000000")))
    parser.add_argument("--model", choices=sorted(MODELS), default="2x128")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--arena-mib", type=int, default=64, help="the server's memory for hot states")
    add_json(parser, "bench-million")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cellkeeper-million-") as folder, ExitStack() as running:
        figures = measure(Path(folder), running, options)
    text = "\n".join(
        ["| figure | |", "|---|---:|", *(f"| {name} | {show(value)} |" for name, value in figures.items())]
    )
    print(text)
    write(options.json, {"machine": machine(), "figures": figures}, text)


def measure(folder: Path, running: ExitStack, options: argparse.Namespace) -> dict[str, Any]:
    shape = MODELS[options.model]
    bundle = write_model(folder, options.model)
    store = running.enter_context(RedisServer({"appendfsync": "everysec"}))
    looking = running.enter_context(store.client())
    arena = ["--arena-mib", str(options.arena_mib)]
    server = running.enter_context(ServerProcess([bundle], store.url, arena))
    client = ClientProcess("cellkeeper redis", server.target)
    running.callback(client.close)

    empty_bytes, start_rss = used(looking), rss_bytes(server.pid)
    sessions = options.sessions // FRAMES * FRAMES
    load = Load("cold", options.model, flows=FRAMES, items=ITEMS, sessions=sessions)
    say(f"creating {sessions:,} sessions")
    started = time.monotonic()
    client.measure(load, 0.5)
    took = time.monotonic() - started
    settle(looking)
    full_bytes = used(looking)
    say(f"created in {took:.0f} s; stepping")

    before = {name: server.metric(name) for name in COUNTED}
    rounds = [client.measure(load, options.seconds) for _ in range(options.rounds)]
    counted = {name: server.metric(name) - before[name] for name in COUNTED}
    cold = server.metric(COUNTED[0], kind="cold")
    settle(looking)
    after_bytes = used(looking)
    in_use, in_use_steps = steadily_used(client, options.model, looking)
    stepped = sum(one["messages"] for one in rounds) * ITEMS
    return {
        "sessions": sessions,
        "keys in Redis": looking.dbsize(),
        "state bytes": shape.state_bytes,
        "sessions made a second": sessions / took,
        "Redis bytes a session, after one step": (full_bytes - empty_bytes) / sessions,
        "of the state": (full_bytes - empty_bytes) / sessions / shape.state_bytes,
        "Redis bytes a session, after the random steps": (after_bytes - empty_bytes) / sessions,
        "Redis bytes a session in steady use": in_use,
        "in steady use, of the state": in_use / shape.state_bytes,
        "steps of each in steady use": in_use_steps,
        "MEMORY USAGE a key": memory_usage(looking),
        "encodings": encodings(looking),
        "steps a second": statistics.median(one["steps_per_second"] for one in rounds),
        "steps a second, spread": [
            min(r["steps_per_second"] for r in rounds),
            max(r["steps_per_second"] for r in rounds),
        ],
        "frame p50 ms": statistics.median(one["p50_ms"] for one in rounds),
        "frame p99 ms": percentile_ms([one["latencies"] for one in rounds], 99.0) or "too few frames",
        "steps measured": stepped,
        "part of the sessions that are hot": options.arena_mib * 2**20 / (2 * shape.state_bytes) / sessions,
        **counted,
        "cold loads since start": cold,
        "server arena bytes": options.arena_mib * 2**20,
        "server RSS bytes at start": start_rss,
        "server RSS bytes": rss_bytes(server.pid),
    }


def steadily_used(client: ClientProcess, model: str, looking: redis.Redis) -> tuple[float, float]:
    """Returns bytes per session after many steps, so that logs have any length; and the number of steps."""
    before = used(looking)
    load = Load("cold", model, flows=2 * FRAMES, items=ITEMS, sessions=STEADY_SESSIONS)
    steps = client.measure(load, STEADY_SECONDS)["messages"] * ITEMS / STEADY_SESSIONS
    settle(looking)
    return (used(looking) - before) / STEADY_SESSIONS, steps


def used(client: redis.Redis) -> int:
    """Returns the bytes of data, without the buffers of the append-only file."""
    info: Any = client.info("memory")
    return int(info["used_memory"]) - int(info.get("mem_aof_buffer", 0))


def settle(client: redis.Redis) -> None:
    """Waits until no rewrite of the append-only file is running."""
    until = time.monotonic() + 300.0
    while time.monotonic() < until:
        info: Any = client.info("persistence")
        if not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]:
            return
        time.sleep(0.2)


def sampled(client: redis.Redis) -> list[bytes]:
    keys: list[Any] = [client.randomkey() for _ in range(SAMPLED)]
    return [key for key in keys if key]


def memory_usage(client: redis.Redis) -> float:
    sizes: list[Any] = [client.memory_usage(key, samples=0) for key in sampled(client)]
    return float(statistics.mean(sizes))


def encodings(client: redis.Redis) -> dict[str, int]:
    found: list[Any] = [client.object("encoding", key) for key in sampled(client)]
    return dict(Counter(one.decode() for one in found))


def rss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def show(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(show(one) for one in value)
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
