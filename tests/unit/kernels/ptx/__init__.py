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

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .global_memory import GlobalMemory
from .machine import Machine, Step
from .program import Program, UnsupportedPTX, parse
from .shared_memory import SharedMemory
from .steps import decode
from .tensor_cores import SUMS

__all__ = ["EMULATED", "GlobalMemory", "Loaded", "UnsupportedPTX", "load", "run"]

_THREADS_TOGETHER = 16_384


@dataclass(frozen=True, slots=True)
class Setting:
    """capability: of the device that Triton compiles for, such as 90. mma_sum, copies_late: as of `run`."""

    capability: int
    mma_sum: str
    copies_late: bool


def _setting(text: str) -> Setting | None:
    """text: capability,sum,late|early"""
    if not text:
        return None
    capability, mma_sum, copies = text.split(",")
    return Setting(int(capability), mma_sum, {"late": True, "early": False}[copies])


EMULATED = _setting(os.environ.get("EMULATE_PTX", ""))
"""How the tests of this process run the kernels; None: not in this emulator."""


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
) -> None:
    """Executes one launch.

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
    together = max(1, _THREADS_TOGETHER // program.threads)
    for start in range(0, len(ctas), together):
        part = ctas[start : start + together]
        shared = SharedMemory(len(part), shared_bytes)
        with np.errstate(all="ignore"):
            machine = Machine(
                program, loaded.steps, part, (x, y, z), values, memory, shared, SUMS[mma_sum], copies_late
            )
            machine.run()
    memory.end_launch()
