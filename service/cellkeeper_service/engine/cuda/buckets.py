"""Buckets: the prepared call shapes, and how a call of any shape is composed of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from cellkeeper_service.domain.spec import ModelSpec

from .buffers import ALIGNMENT_BYTES, Scratch, StepBuffers

SLICE_STEPS = (16, 4, 1)
"""Time steps of a graph. A chunk of 23 becomes slices of 16, 4, 1, 1 and 1, which start one after another without
waiting."""

MAX_GRAPH_STEPS = 4096
"""The most time steps, summed over sessions, in a graph of several steps, to bound its memory. Larger calls use shorter
slices, which cost little more at that size."""


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor within a packed buffer."""

    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + self.dtype.itemsize * prod(self.shape)

    def of(self, buffer: Tensor, at: int = 0) -> Tensor:
        """Returns the view of this tensor in a uint8 buffer whose packed tensors begin at byte `at`."""
        return buffer[at + self.start : at + self.end].view(self.dtype).view(self.shape)


class Layout:
    """Where the tensors of a call of `steps` time steps and `batch` rows lie in the two buffers that are transferred.

    up: read, write, inputs. down: finite, prediction, hidden; "hidden" is last, so that a shorter copy can omit it.
    """

    def __init__(self, spec: ModelSpec, steps: int, batch: int) -> None:
        dtype = torch.int32 if spec.vocabulary else torch.float32
        self.read = Part(0, torch.int32, (batch,))
        self.write = Part(_aligned(self.read.end), torch.int32, (batch,))
        self.inputs = Part(_aligned(self.write.end), dtype, (steps, batch, *spec.input.shape))
        self.up_bytes = _aligned(self.inputs.end)
        self.finite = Part(0, torch.uint8, (batch,))
        self.outputs: dict[str, Part] = {}
        end = self.finite.end
        for output in spec.outputs:
            part = Part(_aligned(end), torch.float32, (steps, batch, *output.shape))
            self.outputs[output.name] = part
            end = part.end
        self.down_bytes = _aligned(end)

    def wanted_bytes(self, wanted: frozenset[str]) -> int:
        """Returns how many bytes of the down buffer must be transferred."""
        return max([self.finite.end, *(self.outputs[name].end for name in wanted)])

    def buffers(self, up: Tensor, down: Tensor) -> StepBuffers:
        """Returns the tensors of both buffers, on the device."""
        outputs = {name: part.of(down) for name, part in self.outputs.items()}
        return StepBuffers(self.inputs.of(up), self.read.of(up), self.write.of(up), outputs, self.finite.of(down))


@dataclass(frozen=True, slots=True)
class Bucket:
    """A prepared call shape. launch: computes from the device's up buffer into its down buffer. scratch: its
    temporaries, kept because a graph knows only their addresses."""

    steps: int
    batch: int
    layout: Layout
    scratch: Scratch
    launch: Callable[[], None]


def batch_sizes(max_batch: int) -> list[int]:
    """Returns 1, 2, 4 ... max_batch."""
    return [1 << power for power in range((max_batch - 1).bit_length())] + [max_batch]


def shapes(max_batch: int) -> list[tuple[int, int]]:
    """Returns (steps, batch) of every bucket."""
    return [(steps, batch) for batch in batch_sizes(max_batch) for steps in SLICE_STEPS if _is_kept(steps, batch)]


def sliced(steps: int, batch: int, max_batch: int) -> list[tuple[int, int]]:
    """Returns the buckets that make up a call of `steps` time steps and `batch` sessions, in order."""
    sizes = batch_sizes(max_batch)
    size = sizes[bisect_left(sizes, batch)]
    parts = []
    for length in SLICE_STEPS:
        if _is_kept(length, size):
            count, steps = divmod(steps, length)
            parts += [(length, size)] * count
    return parts


def _is_kept(steps: int, batch: int) -> bool:
    return steps == 1 or steps * batch <= MAX_GRAPH_STEPS


def _aligned(end: int) -> int:
    return -(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
