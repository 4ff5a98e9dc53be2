"""Loads the server with three times its capacity: what it accepts it does in time, the rest it refuses at once.

python -m verification.load.overload --seconds 20 [--store memory|sqlite|redis] [--items 64|1] [--held-back] [--heavy]
python -m verification.load.overload --seconds 20 [--store memory|sqlite|redis] --official
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from testing.bundles import counting_bundle, make_bundle
from testing.redis_server import RedisServer
from testing.server_process import ServerProcess

from .calls import Plan
from .report import finish
from .vitals import MIB, cpu_seconds, forget_peak_rss, peak_rss_bytes, rss_bytes

LEAST_GOODPUT = 0.4  # of the peak: refusing costs the server time, and the load takes its share of the machine
LEAST_GOODPUT_HELD_BACK = 0.75  # what its own client refuses costs the server nothing
MOST_LATE = 0.03  # of the steps sent
MOST_GROWTH_MIB = 256.0
MOST_RECOVERY_S = 1.0
REFUSED_WITHIN = 0.2  # of the deadline, for half of the refusals
CONNECTION_RPCS = 16  # times the connections: what the server can do in a part of the deadline
OFFICIAL_SESSIONS = 2560  # more than can be in flight at three times the peak
HEAVY_UNITS, HEAVY_LAYERS = 2048, 2
"""For an LSTM that takes the server about 1 ms per step. With a small one, the server does about as many steps as a
generator in Python can send on the same machine, so that three times as many cannot be offered."""
LEAST_PRESSURE = 2.0  # times the peak; if the generator achieves less, the run proves nothing


def overload(
    seconds: float,
    store: str,
    items: int,
    options: list[str],
    held_back: bool = False,
    official: bool = False,
    heavy: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Runs the overload. Returns the figures and the violations.

    held_back: clients refuse their own calls beyond a connection's limit. official: the load is the official client's
    single steps, whatever `items` says; it limits itself, and the model is heavy. heavy: a step takes the server about
    1 ms.
    """
    if official:
        items, heavy = 1, True
    if held_back:
        options = ["--max-connection-rpcs", str(CONNECTION_RPCS), *options]
    plan = Plan(
        items=items,
        sessions=OFFICIAL_SESSIONS if official else 64 * items if items > 1 else 2048,
        clients=8,
        flows=32 if items > 1 else 256,
        capacity_s=max(seconds / 5, 1.0),
        overload_s=seconds,
        after_s=max(seconds / 4, 2.0),
        deadline_s=0.5,
        times=3.0,
        held_back=held_back,
        official=official,
    )
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="cellkeeper-overload-")))
        url = _store_url(store, folder, running)
        with ServerProcess([_bundle(folder / "count", heavy)], url, options) as server:
            found, before, peak, cpu = _press(server, plan)
            output = server.output()
            depth = server.metric("cellkeeper_queue_depth")
    over, rate = found["overload"], found["capacity"]["good"] / found["capacity"]["seconds"]
    goodput = over["good"] / over["seconds"]
    sent = max(over["sent"], 1)
    least = LEAST_GOODPUT_HELD_BACK if held_back or official else LEAST_GOODPUT
    figures = {
        "store": store,
        "client": "official" if official else "held back" if held_back else "raw",
        "items_per_call": items,
        "model": f"lstm {HEAVY_LAYERS}x{HEAVY_UNITS}" if heavy else "running sum",
        "seconds": seconds,
        "deadline_ms": 1000 * plan.deadline_s,
        "capacity_steps_s": round(rate),
        "offered_times_capacity": round(over["sent"] / over["seconds"] / rate, 2),
        "goodput_steps_s": round(goodput),
        "goodput_ratio": round(goodput / rate, 3),
        "refused_share": round(over["refused"] / sent, 4),
        "refused_by_client_share": round(over["at_client"] / sent, 4),
        "late_share": round(over["late"] / sent, 4),
        "good_ms_median_p99_max": over["good_ms"],
        "refused_ms_median_p99_max": over["refused_ms"],
        "calm_ms_median_p99_max": found["calm"]["good_ms"],
        "after_ms_median_p99_max": found["after"]["good_ms"],
        "recovery_s": round(found["recovery_s"], 3),
        "generator_behind_ms": round(over["slowest_turn_ms"], 1),
        "server_cpu_share": round(cpu, 2),
        "rss_mib_before_peak": [round(before / MIB, 1), round(peak / MIB, 1)],
        "queue_depth_after": int(depth),
        "other": over["other"],
    }
    checks = {
        f"the load was {figures['offered_times_capacity']} times the peak, expected at least {LEAST_PRESSURE}": (
            over["sent"] / over["seconds"] < LEAST_PRESSURE * rate
        ),
        f"goodput fell to {goodput / rate:.2f} of its peak": goodput < least * rate,
        f"{over['late']} of {sent} steps were accepted or left waiting, and not done in time": (
            over["late"] > MOST_LATE * sent
        ),
        f"refusals took {over['refused_ms']} ms": bool(over["refused_ms"])
        and not official  # the official client retries until its deadline
        and over["refused_ms"][0] > 1000 * plan.deadline_s * REFUSED_WITHIN,
        "refusals without a retry delay": over["advised"] + over["at_client"] < over["refused"],
        f"other errors: {over['other']}": bool(over["other"]),
        f"memory grew from {before / MIB:.0f} to {peak / MIB:.0f} MiB": peak - before > MOST_GROWTH_MIB * MIB,
        f"recovery took {found['recovery_s']:.2f} s": found["recovery_s"] > MOST_RECOVERY_S,
        f"queue depth {depth} after the load has ended": depth > 0,
        f"the server's log has errors: {output[-1500:]}": "ERROR cellkeeper" in output,
    }
    return figures, [text for text, wrong in checks.items() if wrong]


def _bundle(folder: Path, heavy: bool) -> Path:
    if not heavy:
        return counting_bundle(folder)
    return make_bundle(folder, name="count", input_size=1, hidden_size=HEAVY_UNITS, num_layers=HEAVY_LAYERS, head=(1,))


def _store_url(store: str, folder: Path, running: ExitStack) -> str:
    if store == "redis":
        return running.enter_context(RedisServer()).url
    return "memory:" if store == "memory" else f"sqlite:{folder / 'sessions.db'}"


def _press(server: ServerProcess, plan: Plan) -> tuple[dict[str, Any], int, int, float]:
    """Returns the generator's results, the server's memory before and at its peak, and its share of a core."""
    words = [sys.executable, "-m", "verification.load.pressure", server.target, json.dumps(asdict(plan))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as generator:
        if generator.stdout is None:
            raise RuntimeError("the generator has no output")
        limit_s = 60 + 2 * (plan.capacity_s + plan.overload_s + plan.after_s)
        guard = threading.Timer(limit_s, generator.kill)
        guard.start()
        try:
            generator.stdout.readline()
            forget_peak_rss(server.pid)
            before, cpu = rss_bytes(server.pid), cpu_seconds(server.pid)
            last = generator.stdout.readline()
        finally:
            guard.cancel()
        if not last:
            raise RuntimeError(f"the generator ended without a result, with status {generator.wait()}")
        share = (cpu_seconds(server.pid) - cpu) / (plan.overload_s + plan.after_s + plan.capacity_s)
        return json.loads(last), before, peak_rss_bytes(server.pid), share


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m verification.load.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--store", choices=("memory", "sqlite", "redis"), default="sqlite")
    parser.add_argument("--items", type=int, default=64, help="sessions in one call; 1: the unary Step")
    parser.add_argument("--held-back", action="store_true", help="clients respect the server's limit per connection")
    parser.add_argument(
        "--official", action="store_true", help="the official client makes the load, one step at a time"
    )
    parser.add_argument("--heavy", action="store_true", help="use a model that costs the server about 1 ms per step")
    words, options = parser.parse_known_args()
    return finish(
        *overload(words.seconds, words.store, words.items, options, words.held_back, words.official, words.heavy)
    )


if __name__ == "__main__":
    sys.exit(main())
