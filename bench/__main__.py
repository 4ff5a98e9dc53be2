"""`make bench`: a first table. Contenders take turns, round by round; medians and spreads are over the rounds."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

from tests.bundles import make_bundle
from tests.redis_server import RedisServer
from tests.server_process import ServerProcess

from . import scenarios

UNARY_FLOWS = 64
FRAME_SESSIONS = 256
MODEL = "lstm 2x128, 32 features, 1 output"
Contender = Callable[[float], Awaitable[float]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each contender in each round")
    parser.add_argument("--stores", default="memory,sqlite,redis")
    parser.add_argument("--json", type=Path, default=Path("out/bench.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        per_frame: dict[str, float] = {}
        contenders = start(Path(folder), options.stores.split(","), running, per_frame)
        rounds = asyncio.run(run(contenders, options.rounds, options.seconds))
    print(table(rounds, per_frame))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine(), "model": MODEL, "rounds": rounds}, indent=1) + "\n")


def start(folder: Path, stores: list[str], running: ExitStack, per_frame: dict[str, float]) -> dict[str, Contender]:
    """Starts the echo and one server for each store; gives what is to be measured on them."""
    ceiling = running.enter_context(echo_server())
    contenders: dict[str, Contender] = {
        f"echo, unary x{UNARY_FLOWS}": lambda s: scenarios.echo_unary(ceiling, s, UNARY_FLOWS),
        f"echo, frames of {FRAME_SESSIONS}": lambda s: scenarios.echo_frames(ceiling, s, FRAME_SESSIONS),
    }
    bundle = make_bundle(folder / "bundle", input_size=scenarios.FEATURES, hidden_size=128, num_layers=2, head=(1,))
    for store in stores:
        url = {"memory": "memory:", "sqlite": f"sqlite:{folder / 'bench.db'}"}.get(store)
        if url is None:
            url = running.enter_context(RedisServer({"appendfsync": "everysec"})).url
        target = running.enter_context(ServerProcess([bundle], url)).target
        contenders.update(of_store(store, target, per_frame))
    return contenders


def of_store(store: str, target: str, per_frame: dict[str, float]) -> dict[str, Contender]:
    async def official(seconds: float) -> float:
        steps, per_frame[store] = await scenarios.official(target, seconds, UNARY_FLOWS)
        return steps

    return {
        f"{store}, unary x{UNARY_FLOWS}": lambda s: scenarios.raw_unary(target, s, UNARY_FLOWS),
        f"{store}, client x{UNARY_FLOWS}": official,
        f"{store}, frames of {FRAME_SESSIONS}": lambda s: scenarios.frames(target, s, FRAME_SESSIONS),
    }


async def run(contenders: dict[str, Contender], rounds: int, seconds: float) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        await contender(0.3)  # warm
    for _ in range(rounds):
        for name, contender in contenders.items():
            results[name].append(await contender(seconds))
    return results


def table(rounds: dict[str, list[float]], per_frame: dict[str, float]) -> str:
    """Markdown: medians, spreads, and the ratio to the echo that sends the same messages."""
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    lines = ["| contender | steps a second | spread | of the echo |", "|---|---|---|---|"]
    for name, values in rounds.items():
        kind = "frames" if "frames" in name else "unary"
        ceiling = next(median for other, median in medians.items() if other.startswith(f"echo, {kind}"))
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        lines.append(f"| {name} | {medians[name]:,.0f} | {spread} | {medians[name] / ceiling:.2f} |")
    lines += [f"\n{store}: {steps:.0f} steps in a frame of the client" for store, steps in per_frame.items()]
    return "\n".join(lines)


@contextmanager
def echo_server() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-m", "bench.echo"], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        found = re.search(r"listening on (\S+)", line)
        if found is None:
            raise RuntimeError("the echo server did not start")
        yield found.group(1)
    finally:
        process.kill()
        process.wait()


def machine() -> dict[str, str]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    names = ("grpcio", "protobuf", "numpy", "onnxruntime", "redis")
    cpu = next((line for line in cpu_lines() if line.startswith("model name")), "").partition(":")[2].strip()
    return {"commit": commit, "cpu": cpu, "python": platform.python_version()} | {name: version(name) for name in names}


def cpu_lines() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text().splitlines() if info.exists() else []


if __name__ == "__main__":
    main()
