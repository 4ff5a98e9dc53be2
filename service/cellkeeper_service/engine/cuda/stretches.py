"""Splits the output transforms into stretches, each computed by one launch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cellkeeper_service.model.config import RecurrentConfig, Transform


@dataclass(frozen=True, slots=True)
class Stretch:
    """Transforms for one launch: a chain, and a softmax after it if `softmax`. values: float32 [operations, units]."""

    ops: tuple[str, ...]
    softmax: bool
    values: Tensor


def stretches_of(config: RecurrentConfig, device: torch.device) -> list[Stretch]:
    """Returns the output transforms, split after each softmax. Without head and transforms, one stretch copies."""
    stretches = []
    chain: list[Transform] = []
    for step in config.output:
        if step.op == "softmax":
            stretches.append(_stretch(chain, True, config.output_size, device))
            chain = []
        else:
            chain.append(step)
    if chain or not (stretches or config.head):
        stretches.append(_stretch(chain, False, config.output_size, device))
    return stretches


def _stretch(chain: list[Transform], softmax: bool, units: int, device: torch.device) -> Stretch:
    values = np.zeros((max(len(chain), 1), units), np.float32)
    for row, step in zip(values, chain, strict=False):
        row[:] = 0.0 if step.value is None else step.value
    return Stretch(tuple(step.op for step in chain), softmax, torch.from_numpy(values).to(device))
