"""Converts weights for the kernels: transposed, padded with zeros to whole tiles, and rounded once to the precision.
Values of output transforms are no operands of products, and stay float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.engine.arena import Floats
from cellkeeper_service.engine.precision import Precision
from cellkeeper_service.model.config import RecurrentConfig, Transform

from .tiles import Tile, dense_tile, layer_tile


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix on the device: weight [depth, units_padded, parts], bias float32 [units_padded, parts].

    The parts of a unit, such as its gates, are side by side: they are columns of the same product. depths: how many
    rows of the weight belong to each operand (inputs, h), with padding.
    """

    weight: Tensor
    bias: Tensor
    tile: Tile
    depths: tuple[int, ...]
    units: int
    units_padded: int

    @property
    def programs(self) -> int:
        """How many programs compute a row."""
        return self.bias.numel() // self.tile.columns


Weights = tuple[Sequence[Array], Array]
"""The matrices [parts, units, inputs] of each operand of a product, and its biases [parts, units]."""


def layer_weights(config: RecurrentConfig, tensors: dict[str, Array], layer: int) -> list[Weights]:
    """Returns what each launch of a layer multiplies, the input by the first matrix and h (or r h) by the second."""
    size, gates = config.hidden_size, config.gates
    into, back = (tensors[f"rnn.weight_{kind}_l{layer}"].reshape(gates, size, -1) for kind in ("ih", "hh"))
    into_bias, back_bias = (
        tensors[f"rnn.bias_{kind}_l{layer}"].reshape(gates, size)
        if config.bias
        else np.zeros((gates, size), np.float32)
        for kind in ("ih", "hh")
    )
    bias = into_bias + back_bias
    if config.cell != "gru":
        return [([into, back], bias)]
    if not config.reset_after:
        return [([into[:2], back[:2]], bias[:2]), ([into[2:], back[2:]], bias[2:])]
    # the new gate needs its two products separately
    into, back = (np.insert(matrix, place, 0.0, axis=0) for matrix, place in ((into, 3), (back, 2)))
    return [([into, back], np.stack([*bias[:2], into_bias[2], back_bias[2]]))]


def dense_weights(tensors: dict[str, Array], name: str) -> Weights:
    """Returns a layer of the head, or a projection. name: of its weight."""
    matrix = tensors[name]
    bias = tensors.get(name.replace(".weight", ".bias"), np.zeros(len(matrix), np.float32))
    return [matrix[None]], bias[None]


def product_of(weights: Weights, device: torch.device, precision: Precision) -> Product:
    matrices, biases = weights
    parts, units = biases.shape
    is_layer = len(matrices) == 2
    tile = layer_tile(parts * units, precision) if is_layer else dense_tile(units, matrices[0].shape[2], precision)
    units_padded = tile.padded_columns(parts * units) // parts
    depths = tuple(tile.padded_depth(matrix.shape[2]) for matrix in matrices)
    weight = np.zeros((sum(depths), units_padded, parts), np.float32)
    start = 0
    for matrix, depth in zip(matrices, depths, strict=True):
        weight[start : start + matrix.shape[2], :units] = matrix.transpose(2, 1, 0)
        start += depth
    bias = np.zeros((units_padded, parts), np.float32)
    bias[:units] = biases.T
    return Product(
        _rounded(weight, precision).to(device), torch.from_numpy(bias).to(device), tile, depths, units, units_padded
    )


def _rounded(weight: Floats, precision: Precision) -> Tensor:
    if precision == "tf32":  # rounds halves away from zero, as the kernels do with the other operand
        weight = ((weight.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)
    tensor = torch.from_numpy(weight)
    return tensor.to(torch.bfloat16) if precision == "bf16" else tensor


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
