"""The device tensors of a bucket: what a launch takes and gives, and its temporaries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNMENT_BYTES = 16


@dataclass(slots=True)
class StepBuffers:
    """Device tensors of fixed addresses for one bucket; what a CUDA graph captures. Sizes are the bucket's."""

    inputs: Tensor  # float32 [T, B, F], or int32 [T, B] token ids. Raw, as the client sent them: NaN where missing
    read: Tensor  # int32 [B]: arena rows to read; -1: the row is padding (nothing is read, written or flagged)
    write: Tensor  # int32 [B]
    outputs: dict[str, Tensor]  # wanted only: "prediction" float32 [T, B, units], "hidden" float32 [T, B, H or P]
    finite: Tensor  # uint8 [B]: 1 where every wanted output, the new state and the inputs are usable


@dataclass(slots=True)
class Scratch:
    """Every temporary of a launch of T time steps and B rows. Contents before a launch do not matter."""

    steps: int
    batch: int
    states: tuple[Tensor, Tensor]  # [B, row_width] each: a step reads one and writes the other
    prepared: Tensor  # [T, B, inputs]: filled, normalized or embedded; empty where the inputs are taken as they are
    usable: Tensor  # uint8 [slots, B]
    history: Tensor  # [T, B, H or P] of the top layer
    gates: tuple[Tensor, Tensor]  # [B, H] each: between the two launches of a layer that has two; empty elsewhere
    head: tuple[Tensor, Tensor]  # [T, B, widest]: between the launches of the head


def check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raises ValueError unless the tensor has this shape and dtype and is contiguous and aligned to 16 bytes."""
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(f"{name}: got {tensor.dtype} {list(tensor.shape)}, expected {dtype} {list(shape)}")
    # alignment decides which binary Triton compiles, and so must not differ between buckets
    if not tensor.is_contiguous() or tensor.data_ptr() % _ALIGNMENT_BYTES:
        raise ValueError(f"{name}: expected a contiguous tensor that begins at a multiple of 16 bytes")
