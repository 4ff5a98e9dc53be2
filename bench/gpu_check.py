"""`make gpu-check`: everything that needs a GPU, in under six minutes, on a machine where nothing can be installed.

Parts run one after another, what matters most first, each as a process with a time limit of its own; one that fails or
runs out of time does not end the others. The report, JSON and a table, comes last whatever happened.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import machine

SERVER_PACKAGES = ("google.protobuf", "grpc", "grpc_health", "grpc_reflection", "grpc_status", "prometheus_client")
PYTEST = (sys.executable, "-m", "pytest", "-c", "tests/gpu.ini", "--rootdir", ".", "-q", "--color=no")
LINES_SHOWN = 40


@dataclass(frozen=True)
class Part:
    """needs: packages without which it is skipped."""

    name: str
    command: tuple[str, ...]
    limit_s: int
    needs: tuple[str, ...] = ()


def parts(device: str, folder: Path) -> list[Part]:
    def own(module: str, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", module, "--device", device, *words)

    kernels = [f"tests/unit/kernels/test_{name}.py" for name in ("contract", "inputs", "pointwise")]
    engines = [f"tests/unit/engine/test_{name}.py" for name in ("contract", "overflow", "pytorch")]
    # not the compiled peer: to compile it for every model and precision takes longer than all the rest
    peers = ("--peers", "cudnn,cudnn in a graph")
    bench = (*peers, "--rounds", "2", "--seconds", "0.3", "--json", str(folder / "bench-gpu.json"))
    return [
        Part("exactness", own("bench.gpu_exactness"), 100),
        Part("served", own("bench.gpu_served"), 50, SERVER_PACKAGES),
        Part("bench", own("bench.gpu", *bench), 80),
        Part("engine", (*PYTEST, "-m", "gpu", *engines), 60, ("pytest",)),
        Part("kernels", (*PYTEST, *kernels), 60, ("pytest",)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, default=Path("out"))
    options = parser.parse_args()
    why = no_device()
    if why:
        sys.exit(f"gpu-check: {why}, so nothing was checked")
    options.out.mkdir(parents=True, exist_ok=True)
    results = [run(part) for part in parts(options.device, options.out)]
    report = {"machine": machine(), "device": device_name(options.device), "parts": results}
    (options.out / "gpu-check.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{report['device']}\n\n{table(results)}")
    sys.exit(any(result["outcome"] not in ("passed", "skipped") for result in results))


def run(part: Part) -> dict[str, Any]:
    missing = [package for package in part.needs if not is_there(package)]
    if missing:
        print(
            f"== {part.name}: skipped, needs {', '.join(missing)}; `make gpu-packages` makes a folder to carry",
            flush=True,
        )
        return {"part": part.name, "outcome": "skipped", "seconds": 0.0, "missing": missing, "lines": []}
    print(f"== {part.name} (at most {part.limit_s} s)", flush=True)
    begin = time.monotonic()
    try:
        done = subprocess.run(
            part.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=part.limit_s, check=False
        )
        outcome, output = "passed" if done.returncode == 0 else f"failed ({done.returncode})", done.stdout
    except subprocess.TimeoutExpired as error:
        outcome, output = "out of time", error.stdout or b""
    lines = output.decode(errors="replace").splitlines()
    print("\n".join(lines[-LINES_SHOWN:]), flush=True)
    seconds = round(time.monotonic() - begin, 1)
    return {"part": part.name, "outcome": outcome, "seconds": seconds, "lines": lines[-LINES_SHOWN:]}


def is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def no_device() -> str:
    """Why nothing can be checked; "" where a device is there."""
    missing = [package for package in ("torch", "triton") if not is_there(package)]
    if missing:
        return f"{' and '.join(missing)} cannot be imported by {sys.executable}"
    from cellkeeper_service.engine.cuda.device import cuda_devices

    return "" if cuda_devices() else "torch finds no CUDA device on this machine"


def device_name(device: str) -> str:
    import torch

    return f"{device} {torch.cuda.get_device_name(device)}"


def table(results: list[dict[str, Any]]) -> str:
    lines = ["| part | outcome | s |", "|---|---|---:|"]
    lines += [f"| {one['part']} | {one['outcome']} | {one['seconds']} |" for one in results]
    tables = [line for one in results for line in one["lines"] if one["part"] == "bench" and line.startswith("|")]
    return "\n".join([*lines, "", *tables])


if __name__ == "__main__":
    main()
