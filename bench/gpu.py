"""`make bench-gpu`: the GPU engine alone, compared with torch's LSTM (cuDNN) and the device's limits.

The peers (gpu_peers.py) compute the same step with torch, on states that they gather from and scatter to an arena of
their own: cuDNN's LSTM, launched kernel by kernel or captured in a CUDA graph, and the cell under torch.compile. All
take inputs from pinned host memory and return outputs there.

The floors are measured in the same run: a copy within the device gives bytes per second, a product of two large
matrices in the engine's precision gives operations per second. A step of B sessions must read the weights once, read
and write B states, and do two operations for each weight and session; the slower of the two bounds its time from below.
The floor does not include what must be transferred between host and device in every step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_service.engine.cuda.device import CudaDevice, cuda_devices
from cellkeeper_service.engine.cuda.engine import CudaEngine
from cellkeeper_service.engine.precision import PRECISIONS, Precision
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import Bundle, read_bundle

from testing.bundles import make_bundle

from .gpu_peers import PEERS, are_dispensable, make_peers
from .latencies import counted, percentile_ms
from .machine import machine
from .results import write
from .turns import rotated

FEATURES = 64
FLOAT_BYTES = 4
WEIGHT_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Run:
    """A model and batch to measure: layers of `hidden` units, `batch` sessions in a call."""

    layers: int
    hidden: int
    batch: int

    @property
    def weights(self) -> int:
        """The weights of the LSTM's products, without biases and the head."""
        return 4 * self.hidden * (FEATURES + self.hidden + (self.layers - 1) * 2 * self.hidden)

    def floor_seconds(self, precision: Precision, bytes_per_second: float, operations_per_second: float) -> float:
        """Returns the least seconds that a call can take.

        Bytes: the weights once; states, inputs and outputs of every session. Operations: a multiplication and an
        addition for each weight and session.
        """
        a_session = 2 * (2 * self.layers * self.hidden) + FEATURES + 1
        moved_bytes = WEIGHT_BYTES[precision] * self.weights + FLOAT_BYTES * self.batch * a_session
        return max(moved_bytes / bytes_per_second, 2 * self.weights * self.batch / operations_per_second)


RUNS = (Run(2, 128, 64), Run(1, 1024, 512), Run(2, 512, 1024), Run(2, 512, 64), Run(1, 1024, 64))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda:0", help="cuda:N")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="may be repeated (default: all)")
    parser.add_argument("--peers", type=words, default=tuple(PEERS), help=f"separated by commas, of {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds of each contender in each round")
    parser.add_argument("--json", type=Path, default=Path("out/bench-gpu.json"))
    options = parser.parse_args()
    if not cuda_devices():
        sys.exit("bench-gpu: torch finds no CUDA device on this machine, so nothing was measured")
    try:
        device = CudaDevice(options.device)
    except StartError as error:
        sys.exit(f"bench-gpu: {error}")
    rounds: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for run in RUNS:
            bundle = bundle_of(run, Path(folder))
            for precision in options.precision or PRECISIONS:
                results, without = measured(
                    run, bundle, device, precision, options.peers, options.rounds, options.seconds
                )
                rounds += results
                missing += [asdict(run) | {"precision": precision, "without": without}] if without else []
                report: dict[str, Any] = {"machine": machine(), "device": device.name, "versions": device.versions}
                report |= {"rounds": rounds, "missing": missing}
                write(options.json, report)  # what there is, in case time runs out
    print(f"{device.name}\n\n{table(rounds)}")
    sys.exit(not all(are_dispensable(one["without"]) for one in missing))


def words(text: str) -> tuple[str, ...]:
    unknown = set(text.split(",")) - PEERS.keys()
    if unknown:
        raise argparse.ArgumentTypeError(f"got {', '.join(sorted(unknown))}, expected some of {', '.join(PEERS)}")
    return tuple(text.split(","))


def bundle_of(run: Run, folder: Path) -> Bundle:
    path = folder / f"{run.layers}x{run.hidden}-{run.batch}"
    return read_bundle(make_bundle(path, input_size=FEATURES, hidden_size=run.hidden, num_layers=run.layers))


def measured(
    run: Run,
    bundle: Bundle,
    device: CudaDevice,
    precision: Precision,
    names: Sequence[str],
    rounds: int,
    seconds: float,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Measures the engine and its peers in turn, `rounds` times, with the floors. Also returns the missing peers."""
    engine = CudaEngine(bundle, run.batch, device, precision)
    rows = np.arange(run.batch, dtype=np.intp)
    engine.reserve(run.batch)
    engine.write_states(rows, np.tile(np.frombuffer(engine.initial_state, np.uint8), (run.batch, 1)))
    inputs = np.random.default_rng(0).standard_normal((1, run.batch, FEATURES)).astype(np.float32)
    wanted = frozenset({"prediction"})
    peers, missing = make_peers(names, bundle, run.batch, device.torch_device, precision)
    launches: dict[str, Callable[[], object]] = {"cellkeeper": engine.bucket_launch(1, run.batch)}
    launches |= {name: peer.launch for name, peer in peers.items() if peer.captured}
    results = []
    for number in range(rounds):
        floors = {
            "bytes_per_second": copied(str(device.torch_device)),
            "operations_per_second": multiplied(str(device.torch_device), precision),
        }
        contenders: dict[str, AbstractContextManager[Callable[[], Any]]]
        contenders = {"cellkeeper": nullcontext(lambda: engine.run(inputs, rows, rows, wanted))}
        contenders |= {name: peer.entered(inputs) for name, peer in peers.items()}
        for name in rotated(list(contenders), number):
            with contenders[name] as call:
                figures = timed(call, run.batch, seconds)
                if name in launches:
                    with device.entered() if name == "cellkeeper" else nullcontext():
                        figures["device_us"] = on_the_device(launches[name])
            results.append({"contender": name, "precision": precision} | asdict(run) | figures | floors)
    return results, missing


def timed(call: Callable[[], Any], batch: int, seconds: float) -> dict[str, Any]:
    """Measures whole calls of one time step, from inputs on the host to outputs on the host."""
    for _ in range(5):
        call()
    took: list[float] = []
    until = time.perf_counter() + seconds
    while (start := time.perf_counter()) < until:
        call()
        took.append(time.perf_counter() - start)
    rate = batch * len(took) / sum(took)
    return {"steps_per_second": rate, "p50_ms": 1e3 * statistics.median(took), "latencies": counted(took)}


def on_the_device(launch: Callable[[], object], calls: int = 200) -> float:
    """Returns the microseconds of a graph's kernels alone, launched back to back on the current stream. What they read
    is therefore in the L2 cache, as far as it has room."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    launch()
    begin.record()
    for _ in range(calls):
        launch()
    end.record()
    end.synchronize()
    return float(1e3 * begin.elapsed_time(end) / calls)


def copied(device: str) -> float:
    """Returns the bytes per second of a copy within the device, counting bytes read and written."""
    import torch

    source = torch.zeros(1 << 28, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * FLOAT_BYTES / best(lambda: target.copy_(source), device)


def multiplied(device: str, precision: Precision) -> float:
    """Returns the operations per second of a product in this precision, computed by cuBLAS."""
    import torch

    size, dtype = 8192, torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        return 2 * size**3 / best(lambda: left @ right, device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def best(call: Callable[[], Any], device: str) -> float:
    """Returns the seconds of the fastest of some calls."""
    import torch

    took: list[float] = []
    for _ in range(6):
        start = time.perf_counter()
        call()
        torch.cuda.synchronize(device)
        took.append(time.perf_counter() - start)
    return min(took[1:])


def table(rounds: list[dict[str, Any]]) -> str:
    """Returns a row for each contender of each run, with medians over the rounds."""
    lines = [
        "| model | batch | precision | contender | steps/s | call p50 ms | p99 ms | on the device us | floor / p50 |",
        "|---|---:|---|---|" + "---:|" * 5,
    ]
    keys = ("layers", "hidden", "batch", "precision", "contender")
    for key in dict.fromkeys(tuple(one[name] for name in keys) for one in rounds):
        mine = [one for one in rounds if tuple(one[name] for name in keys) == key]
        layers, hidden, batch, precision, contender = key
        rate, p50 = (statistics.median(one[name] for one in mine) for name in ("steps_per_second", "p50_ms"))
        p99 = percentile_ms([one["latencies"] for one in mine], 99.0)
        run = Run(layers, hidden, batch)
        floors = [run.floor_seconds(precision, one["bytes_per_second"], one["operations_per_second"]) for one in mine]
        part = statistics.median(1e3 * floor / one["p50_ms"] for floor, one in zip(floors, mine, strict=True))
        on_device = f"{statistics.median(one['device_us'] for one in mine):.1f}" if "device_us" in mine[0] else ""
        lines.append(
            f"| {layers}x{hidden} | {batch} | {precision} | {contender} | {rate:,.0f} | {p50:.3f} | {shown(p99)} | "
            f"{on_device} | {part:.2f} |"
        )
    return "\n".join(lines)


def shown(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.3f}"


if __name__ == "__main__":
    main()
