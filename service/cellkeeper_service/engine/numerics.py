"""Names the properties of this machine that decide the bits."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
_FLAGS = ("avx512f", "avx2", "fma", "avx", "sve", "asimd")  # those that choose a float32 kernel

# Without one of these, onnxruntime's products of 8-bit integers on x86 saturate in between, so they may be halved.
_INTEGER_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8")


def instruction_set() -> str:
    """Returns a text such as "x86_64+avx512f+avx2+fma+avx"; only the architecture if the system does not tell more."""
    return "+".join([platform.machine(), *_flags(_FLAGS)])


def integer_instructions() -> str:
    """Returns a text such as "integers+avx512_vnni", for models that multiply integers."""
    return "+".join(["integers", *_flags(_INTEGER_FLAGS)])


def vendor() -> str:
    """Returns the processor's vendor and family, by which some libraries choose their kernels; "" if unknown."""
    told = _cpu_info()
    return " ".join(told[key] for key in ("vendor_id", "cpu family") if key in told)


def _flags(wanted: Iterable[str]) -> list[str]:
    """Returns those of the flags that the processor has."""
    told = _cpu_info()
    found = (told.get("flags") or told.get("Features", "")).split()
    return [flag for flag in wanted if flag in found]


def _cpu_info() -> dict[str, str]:
    """Returns what the system tells about the first processor, without empty values; nothing if it tells nothing."""
    found: dict[str, str] = {}
    try:
        text = CPU_INFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return found
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if value:
            found.setdefault(key, value)
    return found
