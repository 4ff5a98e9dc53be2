"""Names the properties of this machine that decide the bits."""

from __future__ import annotations

import platform
from pathlib import Path

_FLAGS = ("avx512f", "avx2", "fma", "avx", "sve", "asimd")  # those that choose a float32 kernel


def instruction_set() -> str:
    """Returns a text such as "x86_64+avx512f+avx2+fma+avx"; only the architecture if the system does not tell more."""
    found: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                found = set(value.split())
                break
    except OSError:
        found = set()
    return "+".join([platform.machine(), *(flag for flag in _FLAGS if flag in found)])


def vendor() -> str:
    """Returns the processor's vendor and family, by which some libraries choose their kernels; "" if unknown."""
    wanted = {"vendor_id": "", "cpu family": ""}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if wanted.get(key.strip()) == "":
                wanted[key.strip()] = value.strip()
    except OSError:
        return ""
    return " ".join(value for value in wanted.values() if value)
