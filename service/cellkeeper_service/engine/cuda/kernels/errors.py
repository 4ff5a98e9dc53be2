"""What keeps Triton from compiling a kernel, beside RuntimeError."""

from __future__ import annotations

from subprocess import CalledProcessError

from triton.errors import TritonError

COMPILE_ERRORS: tuple[type[Exception], ...] = (
    TritonError,  # of its compilers, and where a kernel takes more than the device has
    CalledProcessError,  # of the C compiler, which its launchers need
    OSError,  # of the folder for its binaries
    AssertionError,  # where it does not find NVIDIA's driver
)
