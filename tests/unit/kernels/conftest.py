from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .interpreter import INTERPRETED, install
from .ptx import EMULATED


@pytest.fixture(scope="session")
def compiling(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that compiles the kernels. Triton keeps the binaries beside what pytest keeps
    between runs, each under a hash of the kernel's source, its constants, the device and the compiler, so it compiles
    again only what has changed."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    cache = getattr(request.config, "cache", None)  # pytest runs without one, too
    environment["TRITON_CACHE_DIR"] = str(cache.mkdir("triton") if cache else tmp_path_factory.mktemp("triton"))
    return environment


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> Iterator[None]:
    """The kernels run on a device, unless Triton interprets them or the PTX that it compiles is emulated."""
    if EMULATED:
        from .ptx.launches import Emulator, compile_for

        compile_for(EMULATED.capability)
        with Emulator(EMULATED.mma_sum, EMULATED.copies_late).installed():
            yield
    else:
        if INTERPRETED:
            install()
        yield
