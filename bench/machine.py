"""The machine and versions that the figures were measured with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("grpcio", "protobuf", "numpy", "onnxruntime", "torch", "redis", "hiredis")


def machine() -> dict[str, str]:
    """Returns them by name. Call it before anything is measured: what else ran shows in the load average."""
    return {
        "commit": commit(),
        "cpu": _line("/proc/cpuinfo", "model name"),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": _line("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": interpreter(sys.executable),
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
        "redis-server": _output("redis-server", "--version").partition("v=")[2].split(" ")[0],
    } | {name: _version(name) for name in PACKAGES}


def interpreter(python: str) -> str:
    """Returns an interpreter's version and build. The same version is up to a tenth faster if the compiler optimised it
    with a profile, of which the build tells at most the compiler."""
    return " ".join(_output(python, "-c", "import sys; print(sys.version)").split())


def commit() -> str:
    """Returns the checked-out commit, with "+" if files differ from it."""
    head = _output("git", "rev-parse", "--short=12", "HEAD")
    return head + ("+" if _output("git", "status", "--porcelain") else "")


def cpu_ticks() -> tuple[int, int]:
    """Returns clock ticks of all cores since the machine started: those that other virtual machines took, and all."""
    user, nice, system, idle, waiting, irq, soft_irq, stolen, *_ = map(int, _line("/proc/stat", "cpu ", "cpu ").split())
    return stolen, user + nice + system + idle + waiting + irq + soft_irq + stolen


def stolen_share(before: tuple[int, int]) -> str:
    """Returns the share of the cores' time that other virtual machines took since `before`, of cpu_ticks."""
    stolen, everything = (now - then for now, then in zip(cpu_ticks(), before, strict=True))
    return f"{stolen / max(everything, 1):.1%}"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def _line(path: str, start: str, separator: str = ":") -> str:
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return next((line for line in lines if line.startswith(start)), "").partition(separator)[2].strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
