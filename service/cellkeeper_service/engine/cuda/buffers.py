"""The device tensors of a bucket: the inputs, results and temporaries of a launch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ALIGNMENT_BYTES = 16


@dataclass(slots=True)
class StepBuffers:
    """One bucket's device tensors, at fixed addresses, as a CUDA graph captures them. The sizes are the bucket's."""

    inputs: Tensor  # float32 [T, B, F], or int32 [T, B] token ids. Raw, as the client sent them; NaN is missing
    read: Tensor  # int32 [B]: arena rows to read; -1: the row is padding (nothing is read, written or flagged)
    write: Tensor  # int32 [B]: arena rows to write
    outputs: dict[str, Tensor]  # those to compute: "prediction" float32 [T, B, units], "hidden" float32 [T, B, H or P]
    finite: Tensor  # uint8 [B]: 1 if the inputs are usable, and these outputs and the new state are finite


@dataclass(slots=True)
class Scratch:
    """All temporaries of a launch of T time steps and B rows. Their contents before a launch do not matter."""

    steps: int
    batch: int
    states: tuple[Tensor, Tensor]  # [B, row_width] each: a step reads one and writes the other
    prepared: Tensor  # [T, B, inputs]: filled, normalized or embedded; unused if inputs need no preprocessing
    usable: Tensor  # uint8 [slots, B]
    history: Tensor  # [T, B, H or P]: the top layer
    gates: tuple[Tensor, Tensor]  # [B, H] each: between the two launches of a layer that needs two; otherwise unused
    head: tuple[Tensor, Tensor]  # [T, B, widest] each: between the launches of the head


def check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raises ValueError unless the tensor has this shape and dtype, is contiguous, and is aligned to 16 bytes."""
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(f"{name}: got {tensor.dtype} {list(tensor.shape)}, expected {dtype} {list(shape)}")
    # Triton compiles different binaries for different alignments, so it must not differ between buckets
    if not tensor.is_contiguous() or tensor.data_ptr() % ALIGNMENT_BYTES:
        raise ValueError(f"{name}: expected a contiguous tensor that begins at a multiple of 16 bytes")
