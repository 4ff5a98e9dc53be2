"""Emulates the PTX that Triton compiles the kernels to, on the CPU: layouts, shared memory, asynchronous copies, tensor
cores, masks and addresses as the compiler made them.

    program = load(ptx_text)
    memory = GlobalMemory()
    memory.allow("x", address, size_bytes)       # any memory of this process; a launch touches nothing else
    run(program, grid, shared_bytes, parameters, memory)

`parameters` has one integer for each of `program.parameters`, in order: pointers are addresses of this process. Races,
and accesses that are out of bounds or misaligned, raise AssertionError; what the emulator does not know raises
UnsupportedPTX.

    program        the text -> instructions
    arithmetic     what the instructions of one thread compute
    tensor_cores   what those of a warp compute
    global_memory  allowed memory, and races in it
    shared_memory  shared memory, and races in it
    machine        the threads' registers, and the loop over the instructions
    steps          each instruction -> a function of the machine
    launches       Triton's launches, emulated
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .global_memory import GlobalMemory
from .machine import Machine, Step
from .program import Program, UnsupportedPTX, parse
from .shared_memory import WARP, SharedMemory
from .steps import decode
from .tensor_cores import SUMS

__all__ = ["GlobalMemory", "Loaded", "UnsupportedPTX", "load", "run"]

_THREADS_TOGETHER = 16_384


@dataclass(frozen=True, slots=True)
class Loaded:
    program: Program
    steps: list[Step]

    @property
    def parameters(self) -> tuple[tuple[str, int], ...]:
        """The name and the bytes of each."""
        return self.program.parameters


def load(text: str) -> Loaded:
    program = parse(text)
    return Loaded(program, decode(program))


def run(
    loaded: Loaded,
    grid: Sequence[int],
    shared_bytes: int,
    parameters: Sequence[int],
    memory: GlobalMemory,
    *,
    mma_sum: str = "once",
    copies_late: bool = True,
) -> int:
    """Executes one launch, and returns how often a thread read what another of its warp wrote since the last barrier.

    mma_sum: one of tensor_cores.SUMS. copies_late: asynchronous copies arrive at the last moment, not at the first.
    """
    program = loaded.program
    if len(parameters) != len(program.parameters):
        raise ValueError(f"{program.name}: got {len(parameters)} parameters, expected {len(program.parameters)}")
    values = {
        name: np.array([[value % (1 << 8 * size)]], f"u{size}")
        for (name, size), value in zip(program.parameters, parameters, strict=True)
    }
    x, y, z = (*grid, 1, 1)[:3]
    ctas = np.stack(np.meshgrid(np.arange(z), np.arange(y), np.arange(x), indexing="ij"), axis=-1).reshape(-1, 3)
    ctas = ctas[:, ::-1]
    within_warp = 0
    together = max(1, _THREADS_TOGETHER // program.threads)
    for start in range(0, len(ctas), together):
        part = ctas[start : start + together]
        shared = SharedMemory(len(part), program.threads // WARP, shared_bytes)
        with np.errstate(all="ignore"):
            machine = Machine(
                program, loaded.steps, part, (x, y, z), values, memory, shared, SUMS[mma_sum], copies_late
            )
            machine.run()
        within_warp += shared.within_warp
    memory.end_launch()
    return within_warp
