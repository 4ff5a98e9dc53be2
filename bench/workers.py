"""`make bench-workers`: what a second server process on the same port gains, for clients with their own connections.

Each client process sends frames of 64 sessions, one at a time. The kernel distributes connections over the processes,
so the clients reconnect in every round. Servers with one and with more processes take turns, on one Redis.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .client_process import ClientProcess
from .load import Load
from .machine import machine
from .models import MAIN
from .results import add_json, write
from .turns import rotated
from .weights import write_model

CLIENTS = 6
LOAD = Load("frames", MAIN, flows=1, items=64)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=2)
    add_json(parser, "bench-workers")
    options = parser.parse_args()
    counts = (1, options.workers)
    rates: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory(prefix="cellkeeper-workers-") as folder, ExitStack() as running:
        bundle = write_model(Path(folder), MAIN)
        store = running.enter_context(RedisServer({"appendfsync": "everysec"}))
        servers = {}
        for count in counts:
            servers[count] = ServerProcess([bundle], store.url, ["--workers", str(count)] if count > 1 else [])
            servers[count].start()
            running.callback(servers[count].stop)
        for number in range(options.rounds):
            for count in rotated(counts, number):
                rates[count].append(measure(servers[count].target, options.seconds))
    ratio = statistics.median(more / one for one, more in zip(rates[1], rates[options.workers], strict=True))
    lines = ["| processes | steps a second | spread | of one |", "|---|---:|---:|---:|"]
    for count in counts:
        found, of_one = rates[count], "" if count == 1 else f"{ratio:.2f}"
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        lines.append(f"| {count} | {statistics.median(found):,.0f} | {spread} | {of_one} |")
    text = "\n".join(lines)
    print(text)
    write(options.json, {"machine": machine(), "steps_per_second": rates}, text)


def measure(target: str, seconds: float) -> float:
    """Returns the steps a second of all clients together."""
    with ExitStack() as running:
        clients = [ClientProcess("cellkeeper redis", target) for _ in range(CLIENTS)]
        for client in clients:
            running.callback(client.close)
            client.begin(LOAD, 0.2)
        for client in clients:
            client.end()
        for client in clients:
            client.begin(LOAD, seconds)
        found = [client.end() for client in clients]
    failed = [figures["error"] for figures in found if "error" in figures]
    if failed:
        raise RuntimeError(failed[0])
    return sum(float(figures["steps_per_second"]) for figures in found)


if __name__ == "__main__":
    main()
