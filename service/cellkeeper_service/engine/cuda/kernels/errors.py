"""The errors, besides RuntimeError, with which Triton fails to compile a kernel."""

from __future__ import annotations

from subprocess import CalledProcessError

from triton.errors import TritonError

COMPILE_ERRORS: tuple[type[Exception], ...] = (
    TritonError,  # from its compilers, or if a kernel needs more than the device has
    CalledProcessError,  # from the C compiler, which builds its launchers
    OSError,  # from the folder for its binaries
    AssertionError,  # if it does not find NVIDIA's driver
)
