"""Runs chunks through the kernels, in memory that reveals what they touch.

Every buffer lies between guards. Guards of floats are NaN, and so are buffers that a kernel has to fill before it reads
them: a forbidden read yields NaN, a forbidden write changes a guard. Outputs and their guards start as a number,
because a faulty kernel may write NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from cellkeeper_service.engine.cuda.cells import StepBuffers
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.model.config import RecurrentConfig
from torch import Tensor

from testing.bundles import Array, bundle_config, random_inputs, random_tensors

from .interpreter import INTERPRETED
from .ptx import EMULATED

DEVICE = torch.device("cpu" if INTERPRETED or EMULATED else "cuda")
GUARD = 1024  # elements on each side: more than the width of a tile
FLAG = 0xA5
UNWRITTEN = -12345.0  # what outputs hold before a launch: not NaN, which a kernel could write


class Guarded:
    """Buffers with guards around them."""

    def __init__(self) -> None:
        self._whole: list[Tensor] = []

    def like(self, tensor: Tensor, *, copied: bool = False, filled: float | None = None) -> Tensor:
        """Returns a buffer of this shape: NaN, FLAG, `filled` or a copy. Guards of indices are 0, a valid row."""
        guard = {torch.float32: float("nan"), torch.uint8: FLAG, torch.int32: 0}[tensor.dtype]
        whole = torch.empty(tensor.numel() + 2 * GUARD, dtype=tensor.dtype, device=DEVICE)
        whole.fill_(guard if filled is None else filled)
        buffer = whole[GUARD : GUARD + tensor.numel()].view(tensor.shape)
        if copied:
            buffer.copy_(tensor)
        self._whole.append(whole)
        return buffer

    def check(self) -> None:
        for whole in self._whole:
            for guard in (whole[:GUARD], whole[-GUARD:]):
                same = torch.equal(guard, guard[:1].expand(GUARD)) or bool(torch.isnan(guard).all())
                assert same, "a kernel wrote beside a buffer"


@dataclass
class Ran:
    """The results of a chunk, as NumPy arrays. Compare their bits as bytes."""

    arena: Array  # float32 [rows, row_width]
    prediction: Array  # float32 [T, B, units]
    hidden: Array
    finite: Array  # uint8 [B]; FLAG if nothing was written

    def row(self, i: int, write: int) -> tuple[bytes, ...]:
        """Returns the bits of all results of batch row i, which was written to arena row `write`."""
        parts = (self.arena[write], self.prediction[:, i], self.hidden[:, i], self.finite[i])
        return tuple(np.ascontiguousarray(part).tobytes() for part in parts)


class Model:
    """A model on the kernels under test.

    kernels: the module with KernelCells, or a mutated copy of it. set_to: weights that all have one value.
    """

    def __init__(
        self,
        kernels: Any,
        precision: Precision = "fp32",
        set_to: Mapping[str, float] = MappingProxyType({}),
        **config: Any,
    ) -> None:
        self.precision = precision
        self.config: RecurrentConfig = bundle_config(**config)
        self.tensors = random_tensors(self.config, 3)
        for name, value in set_to.items():
            self.tensors[name][:] = value
        self.cells = kernels.KernelCells(self.config, self.tensors, DEVICE, precision)

    def arena(self, rows: int, seed: int = 11) -> Array:
        draw = np.random.default_rng(seed)
        return draw.uniform(-0.9, 0.9, (rows, self.cells.row_width)).astype(np.float32)

    def inputs(self, steps: int, batch: int, seed: int = 5) -> Array:
        return random_inputs(self.config, steps, batch, seed)

    def run(
        self,
        arena: Array,
        inputs: Array,
        read: Sequence[int],
        write: Sequence[int],
        wanted: Sequence[str] = ("prediction", "hidden"),
    ) -> Ran:
        """Launches once, in fresh memory. `arena` is not changed."""
        memory = Guarded()
        steps, batch = inputs.shape[:2]
        widths = {"prediction": self.config.output_size, "hidden": self.config.recurrent_size}
        outputs = {name: memory.like(torch.empty(steps, batch, widths[name]), filled=UNWRITTEN) for name in wanted}
        states = memory.like(torch.from_numpy(arena), copied=True)
        finite = memory.like(torch.empty(batch, dtype=torch.uint8))
        buffers = StepBuffers(
            memory.like(torch.from_numpy(inputs), copied=True),
            memory.like(torch.tensor(read, dtype=torch.int32), copied=True),
            memory.like(torch.tensor(write, dtype=torch.int32), copied=True),
            outputs,
            finite,
        )
        scratch = self.cells.scratch(steps, batch)
        for field in fields(scratch):
            value = getattr(scratch, field.name)
            if isinstance(value, Tensor):
                setattr(scratch, field.name, memory.like(value))
            elif isinstance(value, tuple):
                setattr(scratch, field.name, tuple(memory.like(part) for part in value))
        with np.errstate(all="ignore"):
            self.cells.launch(states, buffers, scratch)
        memory.check()
        none = np.empty((steps, batch, 0), np.float32)
        found = {name: outputs[name].cpu().numpy() if name in outputs else none for name in widths}
        return Ran(states.cpu().numpy(), found["prediction"], found["hidden"], finite.cpu().numpy())
