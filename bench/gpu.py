"""`make bench-gpu`: the engine alone on a CUDA device, beside what the device's memory and arithmetic allow.

The floors are measured in the same run: a copy within the device gives bytes a second, a float32 product of two large
matrices gives operations a second. A step of B sessions must read the weights once, read and write B states, and do two
operations for each weight and session; it cannot take less than the slower of the two. What has to travel between
host and device for every step is not in the floor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_service.engine.torch_engine import TorchEngine, cuda_devices
from cellkeeper_service.model.bundle import read_bundle

from tests.bundles import make_bundle

from .machine import machine

FEATURES = 64
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Run:
    """layers of `hidden` units, `batch` sessions in a call."""

    layers: int
    hidden: int
    batch: int

    @property
    def weights(self) -> int:
        """Weights of the LSTM's products, without biases and the head."""
        return 4 * self.hidden * (FEATURES + self.hidden + (self.layers - 1) * 2 * self.hidden)

    @property
    def bytes(self) -> int:
        """That a step must move at the least: the weights once; states, inputs and outputs of every session."""
        a_session = 2 * (2 * self.layers * self.hidden) + FEATURES + 1
        return FLOAT_BYTES * (self.weights + self.batch * a_session)

    @property
    def operations(self) -> int:
        """A multiplication and an addition for each weight and session."""
        return 2 * self.weights * self.batch

    def floor_seconds(self, bytes_per_second: float, operations_per_second: float) -> float:
        return max(self.bytes / bytes_per_second, self.operations / operations_per_second)


RUNS = (Run(1, 1024, 512), Run(2, 512, 1024), Run(2, 512, 64), Run(2, 128, 64), Run(1, 1024, 64))
SMALL_RUNS = (Run(1, 32, 16), Run(2, 16, 8))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--device", default="cuda:0", help="cuda:N; cpu takes small sizes and proves the arithmetic only"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", type=Path, default=Path("out/bench-gpu.json"))
    options = parser.parse_args()
    if options.device != "cpu" and not cuda_devices():
        sys.exit("bench-gpu: torch finds no CUDA device on this machine, so nothing was measured")
    small = options.device == "cpu"
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        engines = [(run, engine_of(run, Path(folder), options.device)) for run in (SMALL_RUNS if small else RUNS)]
        for _ in range(options.rounds):
            floors = {"bytes": copied(options.device, small), "operations": multiplied(options.device, small)}
            rounds += [floors | asdict(run) | timed(engine, run, options.seconds) for run, engine in engines]
        device = engines[0][1].device
    text = table(rounds, [run for run, _ in engines])
    print(f"{device}\n\n{text}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine(), "device": device, "rounds": rounds}, indent=1) + "\n")


def engine_of(run: Run, folder: Path, device: str) -> TorchEngine:
    path = folder / f"{run.layers}x{run.hidden}-{run.batch}"
    bundle = make_bundle(path, input_size=FEATURES, hidden_size=run.hidden, num_layers=run.layers)
    engine = TorchEngine(read_bundle(bundle), max_batch=run.batch, device=device)
    engine.reserve(run.batch)
    state = np.frombuffer(engine.initial_state, np.uint8)
    engine.write_states(np.arange(run.batch, dtype=np.intp), np.tile(state, (run.batch, 1)))
    return engine


def timed(engine: TorchEngine, run: Run, seconds: float) -> dict[str, float]:
    """Whole calls of one time step, from inputs on the host to outputs on the host."""
    rows = np.arange(run.batch, dtype=np.intp)
    inputs = np.random.default_rng(0).standard_normal((1, run.batch, FEATURES)).astype(np.float32)
    wanted = frozenset({"prediction"})
    for _ in range(5):
        engine.run(inputs, rows, rows, wanted)
    took: list[float] = []
    until = time.perf_counter() + seconds
    while (start := time.perf_counter()) < until:
        engine.run(inputs, rows, rows, wanted)
        took.append(time.perf_counter() - start)
    p50, p99 = (float(value) for value in np.percentile(took, [50, 99]))
    return {"steps_per_second": run.batch * len(took) / sum(took), "p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99}


def copied(device: str, small: bool) -> float:
    """Bytes a second of a copy within the device, read and written bytes together."""
    import torch

    source = torch.zeros((1 << 22) if small else (1 << 28), device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * FLOAT_BYTES / best(lambda: target.copy_(source), device)


def multiplied(device: str, small: bool) -> float:
    """Operations a second of a float32 product, without TF32, as the engine computes."""
    import torch

    size = 256 if small else 8192
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    return 2 * size**3 / best(lambda: left @ right, device)


def best(call: Callable[[], Any], device: str) -> float:
    """Seconds of the fastest of some calls."""
    import torch

    took: list[float] = []
    for _ in range(8):
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - start)
    return min(took[1:])


def table(rounds: list[dict[str, Any]], runs: list[Run]) -> str:
    lines = [
        "| model | batch | steps/s | spread | call p50 ms | p99 ms | floor ms | floor / p50 |",
        "|---|" + "---:|" * 7,
    ]
    for run in runs:
        mine = [
            one for one in rounds if (one["layers"], one["hidden"], one["batch"]) == (run.layers, run.hidden, run.batch)
        ]
        rates = [one["steps_per_second"] for one in mine]
        p50, p99 = (statistics.median(one[name] for one in mine) for name in ("p50_ms", "p99_ms"))
        floors = [1e3 * run.floor_seconds(one["bytes"], one["operations"]) for one in mine]
        part = statistics.median(floor / one["p50_ms"] for floor, one in zip(floors, mine, strict=True))
        lines.append(
            f"| {run.layers}x{run.hidden} | {run.batch} | {statistics.median(rates):,.0f} | {min(rates):,.0f} to "
            f"{max(rates):,.0f} | {p50:.3f} | {p99:.3f} | {statistics.median(floors):.4f} | {part:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
