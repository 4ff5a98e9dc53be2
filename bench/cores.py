"""`make bench-cores`: what a step costs in CPU time, separately for the service and Redis.

If they share a machine, steps per second say little about one where they do not. CPU seconds per step do, as long as
neither runs out of cores. Idle time does not count, so other work on the machine has less effect.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .client_process import ClientProcess
from .load import Load
from .machine import machine
from .models import MODELS
from .results import add_json, write
from .weights import write_model

CPU_TIME = 2  # with a process id, the clock of clock_getcpuclockid(3); /proc/PID/stat counts in 10 ms
PARTS = ("service", "Redis")


def loads(model: str) -> dict[str, Load]:
    return {
        "frames of 256": Load("frames", model, flows=2, items=256),
        "frames of 64": Load("frames", model, flows=2, items=64),
        "official client, 64 sessions": Load("client", model, flows=64),
        "unary, 16 at a time": Load("unary", model, flows=16),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cores", description=__doc__)
    parser.add_argument("--models", default="2x128", help=f"separated by commas, of {', '.join(MODELS)}")
    parser.add_argument("--fsync", default="everysec", help="Redis's appendfsync")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    add_json(parser, "bench-cores")
    options = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for model in options.models.split(","):
        for name, costs in measure(model, options.fsync, options.rounds, options.seconds).items():
            found[f"{model}, {name}"] = costs
    text = table(found)
    print(text)
    write(options.json, {"machine": machine(), "cpu_us_per_step": found}, text)


def measure(model: str, fsync: str, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Returns microseconds of CPU time per step for every round, by load and part."""
    costs: dict[str, dict[str, list[float]]] = {name: {part: [] for part in PARTS} for name in loads(model)}
    with tempfile.TemporaryDirectory(prefix="cellkeeper-cores-") as folder, ExitStack() as running:
        bundle = write_model(Path(folder), model)
        store = running.enter_context(RedisServer({"appendfsync": fsync}))
        server = running.enter_context(ServerProcess([bundle], store.url))
        pids = dict(zip(PARTS, (server.pid, store.pid), strict=True))
        client = ClientProcess("cellkeeper redis", server.target)
        running.callback(client.close)
        for _ in range(rounds):
            for name, load in loads(model).items():
                client.measure(load, 0.3)  # creates its sessions
                steps = server.metric("cellkeeper_steps_total")
                before = {part: cpu_seconds(pid) for part, pid in pids.items()}
                client.measure(load, seconds)
                spent = {part: cpu_seconds(pid) - before[part] for part, pid in pids.items()}
                steps = server.metric("cellkeeper_steps_total") - steps
                for part in PARTS:
                    costs[name][part].append(spent[part] / steps * 1e6)
    return costs


def cpu_seconds(pid: int) -> float:
    """Returns the user and system time of all threads of a process, to the nanosecond."""
    return time.clock_gettime(~pid << 3 | CPU_TIME)


def table(found: dict[str, dict[str, list[float]]]) -> str:
    lines = [
        "| load | service, us a step | spread | steps a core s | Redis, us a step | spread | steps a core s |",
        "|---|---:|---|---:|---:|---|---:|",
    ]
    for name, costs in found.items():
        cells = []
        for part in PARTS:
            middle = statistics.median(costs[part])
            spread = f"{min(costs[part]):.1f} to {max(costs[part]):.1f}"
            cells += [f"{middle:.1f}", spread, f"{1e6 / middle:,.0f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
