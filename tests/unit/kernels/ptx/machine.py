"""Executes a program: all threads of several CTAs together, one instruction after another.

A register is an array that broadcasts to [ctas, threads]: what all CTAs or all threads share is kept once. CTAs that
branch differently are executed one group after the other; threads of a CTA must not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic import TYPES
from .global_memory import GlobalMemory
from .program import Program, UnsupportedPTX
from .shared_memory import SharedMemory
from .tensor_cores import Sum

Values = NDArray[Any]
Step = Callable[["Machine"], "Values | None"]
"""Executes an instruction. Returns for a branch which CTAs take it, [ctas]."""

WARP = 32
LETTERS = {"%p": "p", "%rs": "h", "%r": "usf", "%f": "usf", "%rd": "US"}
"""As which of TYPES a register may be read, by the beginning of its name."""

_UNDEFINED = {"p": True, "h": 0xDEAD, "u": 0xFFC0DEAD, "U": 0xDEADDEADDEADDEAD}
"""What a register holds that a predicated instruction did not write: as a float, NaN."""


@dataclass(slots=True)
class Copy:
    """An asynchronous copy in flight. source, size: [ctas, lanes]; the rest of `width` bytes becomes 0."""

    target: Values
    source: Values
    size: Values
    width: int
    lanes: Values


@dataclass(slots=True)
class Machine:
    """ctas: [n, 3], their numbers in x, y, z. copies_late: asynchronous copies read and write at their wait, otherwise
    when they are issued."""

    program: Program
    steps: Sequence[Step]
    ctas: Values
    grid: tuple[int, int, int]
    parameters: dict[str, Values]
    memory: GlobalMemory
    shared: SharedMemory
    add: Sum
    copies_late: bool
    registers: dict[str, Values] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    groups: list[list[Copy]] = field(default_factory=list)

    def run(self, at: int = 0) -> None:
        while at < len(self.steps):
            try:
                taken = self.steps[at](self)
            except KeyError as error:
                raise self._fault(UnsupportedPTX(f"{error} is read before it is written"), at) from error
            except (AssertionError, ArithmeticError, ValueError) as error:
                raise self._fault(error, at) from error
            if taken is None or not taken.any():
                at += 1
            elif taken.all():
                at = self._target(at)
            else:
                self._of(np.flatnonzero(taken)).run(self._target(at))
                self._of(np.flatnonzero(~taken)).run(at + 1)
                return

    def _fault(self, error: Exception, at: int) -> Exception:
        where = self.program.instructions[at]
        return type(error)(f"{self.program.name}, PTX line {where.line}, {where.text}: {error}")

    def _target(self, at: int) -> int:
        operands = self.program.instructions[at].operands
        return self.program.labels[str(operands[0])] if operands else len(self.steps)  # a return

    def _of(self, ctas: Values) -> Machine:
        """Returns a machine with only these CTAs, which continues from here."""

        def chosen(values: Values) -> Values:
            return values[ctas] if len(values) > 1 else values

        def copies(group: list[Copy]) -> list[Copy]:
            return [Copy(one.target, one.source[ctas], one.size[ctas], one.width, one.lanes) for one in group]

        return Machine(
            self.program,
            self.steps,
            self.ctas[ctas],
            self.grid,
            self.parameters,
            self.memory,
            self.shared.of(ctas),
            self.add,
            self.copies_late,
            {name: chosen(values) for name, values in self.registers.items()},
            copies(self.copies),
            [copies(group) for group in self.groups],
        )

    def write(self, name: str, values: Values, guard: Values | None = None) -> None:
        if values.dtype != np.bool_:
            values = values.view(f"u{values.dtype.itemsize}")
        if guard is not None:
            old = self.registers.get(name)
            if old is None:
                letter = LETTERS[name.rstrip("0123456789")][0]
                old = np.full((1, 1), _UNDEFINED[letter], TYPES[letter])
            values = np.where(guard, values, old)
        self.registers[name] = values

    def lanes(self, values: Values) -> Values:
        """Returns the value of each thread of each CTA, [ctas x threads]."""
        return np.broadcast_to(values, (len(self.ctas), self.program.threads)).ravel()

    def threads(self) -> Values:
        """Returns a number for each thread of the launch."""
        x, y, z = (self.ctas[:, axis] for axis in range(3))
        number = (z * self.grid[1] + y) * self.grid[0] + x
        return np.asarray((number[:, None] * self.program.threads + np.arange(self.program.threads)).ravel())

    def same_in_all_ctas(self, values: Values) -> Values:
        """Returns the value of each thread."""
        if len(values) > 1 and (values != values[:1]).any():
            raise UnsupportedPTX("shared memory is used differently by different CTAs")
        return np.broadcast_to(values[0], self.program.threads)

    def by_warp(self, values: Values) -> Values:
        """Returns [ctas, warps, 32]."""
        return np.broadcast_to(values, (len(self.ctas), self.program.threads)).reshape(len(self.ctas), -1, WARP)

    def by_thread(self, values: Values) -> Values:
        return values.reshape(len(self.ctas), self.program.threads)

    def fetch(self, copy: Copy) -> None:
        """Reads and writes what a copy brings."""
        threads = self.threads().reshape(len(self.ctas), -1)[:, copy.lanes].ravel()
        mask = (copy.size > 0).ravel()
        words = self.memory.load(copy.source.ravel(), 4, copy.width // 4, mask, threads)
        self.shared.write_early(copy.target, words.view(np.uint8).reshape(len(self.ctas), -1, copy.width))

    def special(self, name: str) -> Values:
        register, _, axis = name.partition(".")
        at = "xyz".index(axis)
        if register == "%tid":
            return (np.arange(self.program.threads) if at == 0 else np.zeros(1)).astype(np.uint32)[None]
        if register == "%ctaid":
            return self.ctas[:, at, None].astype(np.uint32)
        return np.full(
            (1, 1), {"%nctaid": self.grid[at], "%ntid": self.program.threads if at == 0 else 1}[register], np.uint32
        )
