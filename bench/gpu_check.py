"""`make gpu-check`: everything that needs a GPU, in under six minutes, on a machine where nothing can be installed.

The parts run one after another, the most important first, each as a process with its own time limit. A part that fails
or runs out of time does not end the others, and leaves no process on the device. The last part gets the time that the
others leave. What the parts print goes into a log at once; the JSON is written after every part, the table at the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .machine import machine

SERVER_PACKAGES = ("google.protobuf", "grpc", "grpc_health", "grpc_reflection", "grpc_status", "prometheus_client")
PYTEST = (sys.executable, "-m", "pytest", "-c", "tests/gpu.ini", "--rootdir", ".", "-q", "--color=no")
WORKERS = ("-n", "8", "--dist", "loadgroup")  # most of a test's time is compilation
WHOLE_S = 352
LINES_SHOWN = 44
REPORT_JSON = "gpu-check.json"
REPORT_LOG = "gpu-check.log"
BENCH_JSON = "bench-gpu.json"
OUT_OF_TIME = "out of time"
CUT_SHORT = "cut short"  # by what the parts before it took


@dataclass(frozen=True)
class Part:
    """One part of the check. needs: packages without which it is skipped."""

    name: str
    command: tuple[str, ...]
    limit_s: int
    needs: tuple[str, ...] = ()


def parts(device: str, folder: Path) -> list[Part]:
    def own(module: str, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", module, "--device", device, *words)

    kernels = [f"tests/unit/kernels/test_{name}.py" for name in ("contract", "inputs", "pointwise")]
    engines = [f"tests/unit/engine/test_{name}.py" for name in ("contract", "overflow", "pytorch")]
    engines.append("tests/unit/cuda/test_loading_on_a_device.py")
    # not the compiled peer: compiling it for every model and precision takes longer than everything else
    peers = ("--peers", "cudnn,cudnn in a graph")
    bench = (*peers, "--rounds", "2", "--seconds", "0.3", "--json", str(folder / BENCH_JSON))
    pytest = (*PYTEST, *(WORKERS if is_there("xdist") else ()))
    return [
        Part("exactness", own("bench.gpu_exactness"), 90),
        Part("served", own("bench.gpu_served"), 60, SERVER_PACKAGES),
        Part("bench", own("bench.gpu", *bench), 90),
        Part("engine", (*pytest, "-m", "gpu", *engines), 55, ("pytest",)),
        Part("kernels", (*pytest, *kernels), 55, ("pytest",)),
        Part("tiles", own("bench.gpu_tiles"), 110),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # also ends the running part
    until = time.monotonic() + WHOLE_S
    why = why_not(options.device)
    if why:
        sys.exit(f"gpu-check: {why}, so nothing was checked")
    sys.exit(checked(parts(options.device, options.out), options.out, device_name(options.device), until))


def checked(chosen: Sequence[Part], folder: Path, device: str, until: float = math.inf) -> bool:
    """Runs the parts and reports. until: as of time.monotonic(). Returns True if one of them failed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (BENCH_JSON, REPORT_LOG):  # from an earlier run
        (folder / name).unlink(missing_ok=True)
    results: list[dict[str, Any]] = []
    report = {"machine": machine(), "device": device, "parts": results}
    for part in chosen:
        results.append(run(part, folder, until - time.monotonic()))
        (folder / REPORT_JSON).write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{device}\n\n{table(results, folder)}")
    return any(result["outcome"] not in ("passed", "skipped", CUT_SHORT) for result in results)


def run(part: Part, folder: Path, left_s: float = math.inf) -> dict[str, Any]:
    """Runs a part, and adds what it prints to the folder's log. left_s: ends it after so many seconds, too."""
    missing = [package for package in part.needs if not is_there(package)]
    if missing:
        print(
            f"== {part.name}: skipped, needs {', '.join(missing)}; `make gpu-packages` makes a folder to bring along",
            flush=True,
        )
        return {"part": part.name, "outcome": "skipped", "seconds": 0.0, "missing": missing, "lines": []}
    limit_s = max(0.0, min(part.limit_s, left_s))
    print(f"== {part.name} (at most {limit_s:.0f} s)", flush=True)
    begin = time.monotonic()
    with (folder / REPORT_LOG).open("a+b") as log:
        log.write(f"== {part.name}\n".encode())
        log.flush()
        start = log.tell()
        outcome = ended(part.command, log, limit_s)
        if outcome == OUT_OF_TIME and left_s <= part.limit_s:
            outcome = CUT_SHORT
        log.seek(start)
        output = log.read()
        log.write(f"== {part.name}: {outcome}\n\n".encode())
    lines = output.decode(errors="replace").splitlines()
    print("\n".join(lines[-LINES_SHOWN:]), flush=True)
    seconds = round(time.monotonic() - begin, 1)
    return {"part": part.name, "outcome": outcome, "seconds": seconds, "lines": lines[-LINES_SHOWN:]}


def ended(command: Sequence[str], log: BinaryIO, limit_s: float) -> str:
    """Runs a command that writes into the log, so that the log has what was printed even if all of this is ended.
    Returns its outcome."""
    # in its own session, so that processes it started end with it and do not disturb later parts
    with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True) as process:
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return OUT_OF_TIME
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return "passed" if status == 0 else f"failed ({status})"


def is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # for a missing parent package
        return False


def why_not(device: str) -> str:
    """Returns why nothing can be checked; "" if that device is there."""
    missing = [package for package in ("torch", "triton") if not is_there(package)]
    if missing:
        return f"{' and '.join(missing)} cannot be imported by {sys.executable}"
    from cellkeeper_service.engine.cuda.device import cuda_devices

    found = [f"cuda:{number}" for number in range(cuda_devices())]
    if not found:
        return "torch finds no CUDA device on this machine"
    return "" if device in found else f"device: got {device}, expected one of {', '.join(found)}"


def device_name(device: str) -> str:
    import torch

    return f"{device} {torch.cuda.get_device_name(device)}"


def table(results: list[dict[str, Any]], folder: Path) -> str:
    """Returns the parts, then the bench's figures, as many as it had when it ended."""
    lines = ["| part | outcome | s |", "|---|---|---:|"]
    lines += [f"| {one['part']} | {one['outcome']} | {one['seconds']} |" for one in results]
    figures = folder / BENCH_JSON
    if not figures.exists():
        return "\n".join(lines)
    from .gpu import table as bench_table

    return "\n".join([*lines, "", bench_table(json.loads(figures.read_text())["rounds"])])


if __name__ == "__main__":
    main()
