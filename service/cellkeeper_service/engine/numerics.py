"""Names the properties of this machine that decide the bits."""

from __future__ import annotations

import platform
from pathlib import Path

_FLAGS = ("avx512f", "avx2", "fma", "avx", "sve", "asimd")  # those that choose a float32 kernel


def instruction_set() -> str:
    """Returns a text such as "x86_64+avx512f+avx2+fma+avx"; only the architecture if the system does not tell more."""
    told = _cpu_info()
    found = (told.get("flags") or told.get("Features", "")).split()
    return "+".join([platform.machine(), *(flag for flag in _FLAGS if flag in found)])


def vendor() -> str:
    """Returns the processor's vendor and family, by which some libraries choose their kernels; "" if unknown."""
    told = _cpu_info()
    return " ".join(told[key] for key in ("vendor_id", "cpu family") if key in told)


def _cpu_info() -> dict[str, str]:
    """Returns what the system tells about the first processor, without empty values; nothing if it tells nothing."""
    found: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return found
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if value:
            found.setdefault(key, value)
    return found
