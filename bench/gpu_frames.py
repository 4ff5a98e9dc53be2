"""`make bench-gpu-frames`: a server on the device, driven through gRPC frames, compared with its engine alone.

Two flows send frames of 256 sessions, one time step each, and wait for the answer: on the memory store, which shows the
service itself, and on SQLite, which makes every step durable. The engine alone takes batches of the same size, from
inputs on the host to outputs on the host. They take turns, round by round, on one device; the client is a process of
its own.

`--device cpu` measures the same without a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.engine.precision import PRECISIONS, Precision

from testing.server_process import ServerProcess

from .client_process import ClientProcess
from .cores import cpu_seconds
from .gpu import shown, timed
from .latencies import percentile_ms
from .load import Load
from .machine import machine
from .models import MODELS
from .results import write
from .turns import rotated
from .weights import write_model

FLOWS = 2
ENGINE = "engine alone"
WARM_SECONDS = 0.3  # creates the sessions
ARENA_MIB = 64  # for each server: the others need device memory too


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_frames", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--models", default="2x128,2x512", help=f"separated by commas, of {', '.join(MODELS)}")
    parser.add_argument("--items", type=int, default=256, help="sessions in a frame, and in a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of each contender in each round")
    parser.add_argument("--json", type=Path, default=Path("out/bench-gpu-frames.json"))
    options = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    for model in options.models.split(","):
        rounds += measured(model, options.device, options.precision, options.items, options.rounds, options.seconds)
        report = {"machine": machine(), "flows": FLOWS, "items": options.items, "rounds": rounds}
        write(options.json, report)  # what there is, in case time runs out
    print(table(rounds))


def measured(
    model: str, device: str, precision: Precision, items: int, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Returns one result for each contender and round. Raises RuntimeError if a server or a load fails."""
    results = []
    with tempfile.TemporaryDirectory(prefix="cellkeeper-gpu-frames-") as folder, ExitStack() as running:
        bundle = write_model(Path(folder), model)
        engine = load_engine(bundle, device, items, precision=precision)
        about = {"model": model, "precision": precision, "device": engine.device, "numerics": engine.numerics}
        rows = np.arange(items, dtype=np.intp)
        engine.reserve(items)
        engine.write_states(rows, np.tile(np.frombuffer(engine.initial_state, np.uint8), (items, 1)))
        shape = (1, items, *engine.spec.input.shape)
        inputs = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        wanted = frozenset({"prediction"})
        contenders: dict[str, Callable[[], dict[str, Any]]] = {
            ENGINE: lambda: timed(lambda: engine.run(inputs, rows, rows, wanted), items, seconds)
        }
        words = ["--device", device, "--precision", precision]
        words += ["--max-batch", str(items), "--arena-mib", str(ARENA_MIB)]
        for name, store in {"memory": "memory:", "SQLite": f"sqlite:{Path(folder) / 'store.db'}"}.items():
            server = running.enter_context(ServerProcess([bundle], store, words))
            client = ClientProcess(f"cellkeeper {name}", server.target)
            running.callback(client.close)
            load = Load("frames", model, flows=FLOWS, items=items)
            client.measure(load, WARM_SECONDS)
            contenders[f"frames, {name}"] = frames(server, client, load, seconds)
        for number in range(rounds):
            order = rotated(list(contenders), number)
            results += [about | {"contender": name} | contenders[name]() for name in order]
    return results


def frames(server: ServerProcess, client: ClientProcess, load: Load, seconds: float) -> Callable[[], dict[str, Any]]:
    """Returns a function that measures one round of frames. CPU time is the server's, including its warm-up."""

    def measure() -> dict[str, Any]:
        steps, spent = server.metric("cellkeeper_steps_total"), cpu_seconds(server.pid)
        figures = client.measure(load, seconds)
        steps, spent = server.metric("cellkeeper_steps_total") - steps, cpu_seconds(server.pid) - spent
        return {
            **{name: figures[name] for name in ("steps_per_second", "p50_ms", "latencies")},
            "server_cpu_us_per_step": 1e6 * spent / steps,
        }

    return measure


def table(rounds: list[dict[str, Any]]) -> str:
    """Returns a row for each contender of each model, with medians over the rounds."""
    lines = [
        "| model | precision | device | contender | steps/s | p50 ms | p99 ms | server us a step | of the engine's |",
        "|---|---|---|---|" + "---:|" * 5,
    ]
    for model, contender in dict.fromkeys((one["model"], one["contender"]) for one in rounds):
        mine = [one for one in rounds if (one["model"], one["contender"]) == (model, contender)]
        alone = [one for one in rounds if (one["model"], one["contender"]) == (model, ENGINE)]
        rate, p50 = (statistics.median(one[name] for one in mine) for name in ("steps_per_second", "p50_ms"))
        p99 = percentile_ms([one["latencies"] for one in mine], 99.0)
        spent = [one["server_cpu_us_per_step"] for one in mine if "server_cpu_us_per_step" in one]
        cpu = f"{statistics.median(spent):.1f}" if spent else ""
        share = statistics.median(
            one["steps_per_second"] / other["steps_per_second"] for one, other in zip(mine, alone, strict=True)
        )
        lines.append(
            f"| {model} | {mine[0]['precision']} | {mine[0]['device']} | {contender} | {rate:,.0f} | {p50:.3f} | "
            f"{shown(p99)} | {cpu} | {share:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
