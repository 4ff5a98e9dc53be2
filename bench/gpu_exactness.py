"""`python -m bench.gpu_exactness`: loads models of several sizes in every precision, and runs the servers' trial.

The trial checks for the same bits in any batch, place and chunking. Each model is loaded in a process of its own: a
process cannot use the device any more after a CUDA error. Prints a line of JSON for each; exits with 1 if one is not
exact, is further from float64 than its precision explains (wrong values can be the same in any batch, too), or its
graphs could not be captured: it would be served all the same, but slowly.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.engine.precision import PRECISIONS, Precision
from cellkeeper_service.model.bundle import read_bundle

from testing.bundles import make_bundle

CONTEXT = multiprocessing.get_context("forkserver")
PASSES = ("exact", "accurate", "captured")
MOST_DISTANCE: dict[Precision, float] = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 0.2}
"""From float64. Several times what these models have with products rounded to that precision."""
FEATURES = 64  # and a head of one unit: then the kernels are those of bench.gpu, compiled once for both
MODELS: dict[str, dict[str, Any]] = {
    "2x128": {"num_layers": 2, "hidden_size": 128},
    "2x512": {"num_layers": 2, "hidden_size": 512},
    "1x1024": {"hidden_size": 1024},
    "1x64": {"hidden_size": 64},
    "gru-2x128": {"cell": "gru", "num_layers": 2, "hidden_size": 128},
    "projection-2x128-48": {"num_layers": 2, "hidden_size": 128, "proj_size": 48},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_exactness", description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--max-batch", type=int, default=256)
    parser.add_argument("--jobs", type=int, default=6, help="models at the same time: most of it is compilation")
    options = parser.parse_args()
    failed = False
    CONTEXT.set_forkserver_preload(["cellkeeper_service.engine.cuda.engine"])  # torch is imported once
    with ThreadPoolExecutor(options.jobs) as threads:
        loads = [
            threads.submit(apart, loaded, name, precision, options.device, options.max_batch)
            for precision in PRECISIONS
            for name in MODELS
        ]
        for load in as_completed(loads):
            result = load.result()
            failed |= not all(result[name] for name in PASSES)
            print(json.dumps(result), flush=True)
    sys.exit(failed)


def apart(load: Callable[..., dict[str, Any]], name: str, precision: Precision, *more: Any) -> dict[str, Any]:
    """Returns what `load` returns in a process of its own, or an error if that process ends without it."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=send, args=(sender, load, name, precision, *more))
    process.start()
    sender.close()
    try:
        result: dict[str, Any] = receiver.recv()
    except EOFError:
        process.join()
        error = f"its process ended with status {process.exitcode}"
        result = unloaded(name, precision) | {"error": error}
    process.join()
    return result


def send(sender: Connection, load: Callable[..., dict[str, Any]], *more: Any) -> None:
    sender.send(load(*more))


def loaded(name: str, precision: Precision, device: str, max_batch: int) -> dict[str, Any]:
    """Loads a model. Returns what its trial found, or the error if it does not load."""
    result = unloaded(name, precision)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bundle = read_bundle(make_bundle(Path(folder) / name, name=name, input_size=FEATURES, **MODELS[name]))
        try:
            engine = load_engine(bundle, device, max_batch, precision=precision)
        except Exception as error:  # noqa: BLE001  # after any error the others are tried
            return result | {"error": " ".join(str(error).split())[:500]}
    return result | {
        "exact": engine.exact and engine.numerics.endswith(" min_batch=1"),
        "accurate": engine.tolerance <= MOST_DISTANCE[precision],
        "captured": getattr(engine, "captured", False),  # only the CUDA engine has graphs
        "tolerance": engine.tolerance,
        "load_seconds": round(time.perf_counter() - begin, 2),
        "numerics": engine.numerics,
    }


def unloaded(name: str, precision: Precision) -> dict[str, Any]:
    return {"model": name, "precision": precision} | dict.fromkeys(PASSES, False)


if __name__ == "__main__":
    main()
