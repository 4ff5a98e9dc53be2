"""Doubles for the kernels and the device, to test the code around them fast and under failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from cellkeeper_service.domain.engine import EngineLost
from cellkeeper_service.engine.cuda.buffers import StepBuffers
from cellkeeper_service.engine.cuda.device import CaptureFailed, CudaDevice
from cellkeeper_service.engine.inputs import Preprocessing
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.engine.torch_cells import TorchCells
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.config import RecurrentConfig
from cellkeeper_service.model.tensors import all_states, cell_states

from testing.bundles import Array


class Temporaries:
    """Stands for a Scratch: torch computes without one."""


class TorchKernelCells:
    """KernelCells' interface, computed row by row in torch.

    Exact by construction as the kernels are, and a hundred times as fast as the kernels in the interpreter.
    """

    def __init__(
        self, config: RecurrentConfig, tensors: dict[str, Array], device: torch.device, precision: Precision
    ) -> None:
        torch.set_num_threads(1)  # with several, threads wait for each other when tests run in parallel
        self._cells = TorchCells(config, tensors)
        self._preprocessing = Preprocessing(config)
        self._width = sum(state.nbytes for state in cell_states(config)) // 4
        self.row_width = sum(state.nbytes for state in all_states(config)) // 4
        self.numerics = f"{precision} double"

    def scratch(self, steps: int, batch: int) -> Temporaries:
        return Temporaries()

    @torch.inference_mode()
    def launch(self, arena: torch.Tensor, buffers: StepBuffers, scratch: Temporaries) -> None:
        results = []
        for row, read in enumerate(buffers.read.tolist()):
            if read >= 0:
                results.append((row, self._advance(arena[read : read + 1].clone(), buffers, row)))
        for row, state in results:
            arena[int(buffers.write[row])] = state[0]

    def _advance(self, before: torch.Tensor, buffers: StepBuffers, row: int) -> torch.Tensor:
        inputs = buffers.inputs[:, row : row + 1].numpy()
        filled = torch.empty_like(buffers.inputs[:, row : row + 1])
        held = before[:, self._width :]
        good = self._preprocessing.fill(inputs, filled.numpy(), held.numpy() if self._preprocessing.holds else None)
        states = self._cells.split(before[:, : self._width])
        finite = good is None
        for step in range(len(filled)):
            hidden = self._cells.step(filled[step], states)
            for name, values in (("hidden", hidden), ("prediction", self._cells.predict(hidden))):
                buffers.outputs[name][step, row] = values[0]
                finite &= bool(torch.isfinite(values).all())
        after = torch.cat([self._cells.join(states), held], dim=1)
        buffers.finite[row] = finite and bool(torch.isfinite(after).all())
        return after


class HostDevice(CudaDevice):
    """The CPU in place of a device, with the kernels in Triton's interpreter or TorchKernelCells."""

    torch_device = torch.device("cpu")
    name = "cpu"
    versions = f"torch {torch.__version__} interpreted"

    def __init__(self) -> None:
        """Asks for no CUDA."""

    @contextmanager
    def entered(self) -> Iterator[None]:
        yield

    def check_precision(self, precision: Precision) -> None:
        """Does nothing: the interpreter supports every precision."""

    def pinned(self, size_bytes: int) -> torch.Tensor:
        return torch.empty(size_bytes, dtype=torch.uint8)

    def free_bytes(self) -> int:
        return 1 << 34

    def compile(self, launch: Callable[[], None]) -> None:
        launch()

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        return launch

    def synchronize(self) -> None:
        """Does nothing: everything is done when its call returns."""

    def release(self) -> None: ...


class FailingDevice(HostDevice):
    """A host device with a chosen amount of memory, that fails on command.

    reduced: supports tf32 and bf16. captures: graphs can be captured.
    """

    name = "cuda:0 a device of tests"

    def __init__(self, memory_bytes: int = 1 << 34, reduced: bool = True, captures: bool = True) -> None:
        self._memory_bytes = memory_bytes
        self._reduced = reduced
        self._captures = captures
        self._left = -1
        self.failed = False
        self.captured = self.replayed = self.waited = 0

    def arm(self, uses: int) -> None:
        """Lets the device fail after so many more uses (`entered` or `synchronize`)."""
        self._left = uses

    @contextmanager
    def entered(self) -> Iterator[None]:
        self._use()
        yield

    def synchronize(self) -> None:
        self.waited += 1
        self._use()

    def _use(self) -> None:
        if self._left == 0:
            self.failed = True
            raise EngineLost(f"{self.name} failed: CUDA error: unspecified launch failure")
        self._left -= self._left > 0

    def check_precision(self, precision: Precision) -> None:
        if precision != "fp32" and not self._reduced:
            raise StartError(f"precision: got {precision}, {self.name} has none of it; choose --precision fp32")

    def free_bytes(self) -> int:
        return self._memory_bytes

    def capture(self, launch: Callable[[], None]) -> Callable[[], Any]:
        if not self._captures:
            raise CaptureFailed("operation not permitted when stream is capturing")
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            launch()

        return replay
