"""Launches Triton's kernels in the emulator: compiled by Triton's own specialization of the arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import triton
from torch import Tensor
from triton.runtime.jit import JITFunction

from ..compiled import AbsentDevice
from . import GlobalMemory, Loaded, load, run


def compile_for(capability: int) -> None:
    """Lets Triton compile for such a device from now on."""
    triton.runtime.driver.set_active(AbsentDevice(capability))


class Emulator:
    """mma_sum, copies_late: as of `run`. change: what is made of the PTX before it is executed."""

    def __init__(
        self, mma_sum: str = "once", copies_late: bool = True, change: Callable[[str], str] = lambda text: text
    ) -> None:
        self.mma_sum, self.copies_late, self.change = mma_sum, copies_late, change
        self._loaded: dict[int, tuple[Any, Loaded]] = {}  # the binary, too, so that its id stays its own

    def launch(self, kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        binary = kernel.run(*args, grid=grid, warmup=True, **kwargs)
        if id(binary) not in self._loaded:
            self._loaded[id(binary)] = binary, load(self.change(binary.asm["ptx"]))
        loaded = self._loaded[id(binary)][1]
        named = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
        memory = GlobalMemory()
        parameters: list[Any] = []
        for name, kind in binary.src.signature.items():
            value = named.get(name)
            if kind == "constexpr":
                continue
            if isinstance(value, Tensor):
                memory.allow(name, value.data_ptr(), value.numel() * value.itemsize, value.itemsize)
                value = value.data_ptr()
            parameters.append(value)
        parameters += [0] * (len(loaded.parameters) - len(parameters))  # Triton's own scratch, of which there is none
        run(
            loaded,
            grid,
            binary.metadata.shared,
            parameters,
            memory,
            mma_sum=self.mma_sum,
            copies_late=self.copies_late,
        )

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replaces all launches of this process."""

        def launcher(kernel: Any, grid: Any) -> Any:
            return lambda *args, **kwargs: self.launch(kernel, grid, args, kwargs)

        own, JITFunction.__getitem__ = JITFunction.__getitem__, launcher
        try:
            yield
        finally:
            JITFunction.__getitem__ = own
