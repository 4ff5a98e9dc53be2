"""Triton's compiler: its version, which is part of what decides the bits, and its errors."""

from __future__ import annotations

from subprocess import CalledProcessError

import triton
from triton.errors import TritonError

TRITON_VERSION: str = triton.__version__
COMPILE_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    TritonError,  # from its compilers, or if a kernel needs more than the device has
    CalledProcessError,  # from the C compiler, which builds its launchers
    OSError,  # from the folder for its binaries
    AssertionError,  # if it does not find NVIDIA's driver
)
