"""mma.sync, ldmatrix and stmatrix: which thread holds what, and the sums.

A register of a warp is [..., 32] uint32; a warp's matrices are [..., rows, columns]. NVIDIA does not say in which order
a tensor core adds the products of one mma.sync and the accumulator. So there are several orders, and what is promised
about results must hold with each of them:

    once       the sum in float64, rounded once
    ascending  a chain of fused multiply-adds over k
    truncated  all terms are shifted to the exponent of the largest and cut off below 24 bits, and so is the sum: about
               what is measured on devices, and the least exact of them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic import fma

Values = NDArray[Any]
Sum = Callable[[Values, Values, Values], Values]

_THREAD = np.arange(32)
_GROUP, _WITHIN = _THREAD // 4, _THREAD % 4


def _once(a: Values, b: Values, c: Values) -> Values:
    with np.errstate(all="ignore"):
        total = np.matmul(a.astype(np.float64), b.astype(np.float64)) + c
    return np.asarray(total.astype(np.float32))


def _ascending(a: Values, b: Values, c: Values) -> Values:
    for k in range(a.shape[-1]):
        c = fma(a[..., :, k, None], b[..., None, k, :], c)
    return c


def _truncated(a: Values, b: Values, c: Values) -> Values:
    products = a.astype(np.float64)[..., :, :, None] * b.astype(np.float64)[..., None, :, :]
    terms = np.concatenate([products, c.astype(np.float64)[..., :, None, :]], axis=-2)
    exponents = np.frexp(np.abs(terms).max(axis=-2, keepdims=True))[1]
    total = np.ldexp(np.trunc(np.ldexp(terms, 24 - exponents)), exponents - 24).sum(axis=-2)
    _, exponents = np.frexp(total)
    return np.asarray(np.ldexp(np.trunc(np.ldexp(total, 24 - exponents)), exponents - 24).astype(np.float32))


SUMS: dict[str, Sum] = {"once": _once, "ascending": _ascending, "truncated": _truncated}


def mma_tf32(a: Sequence[Values], b: Sequence[Values], c: Sequence[Values], add: Sum) -> list[Values]:
    """m16n8k8. Operands must have been rounded to tf32: what a device does with the other 13 bits is not defined."""
    left = np.empty((*a[0].shape[:-1], 16, 8), np.uint32)
    for register, (row, column) in zip(a, ((0, 0), (8, 0), (0, 4), (8, 4)), strict=True):
        left[..., _GROUP + row, _WITHIN + column] = register
    right = np.empty((*b[0].shape[:-1], 8, 8), np.uint32)
    for register, row in zip(b, (0, 4), strict=True):
        right[..., _WITHIN + row, _GROUP] = register
    for operand in (left, right):
        finite = (operand & np.uint32(0x7F800000)) != np.uint32(0x7F800000)
        if (finite & ((operand & np.uint32(0x1FFF)) != 0)).any():
            raise ValueError("an operand of mma.sync is not rounded to tf32")
        operand &= np.uint32(0xFFFFE000)
    return _product(left.view(np.float32), right.view(np.float32), c, add)


def mma_bf16(a: Sequence[Values], b: Sequence[Values], c: Sequence[Values], add: Sum) -> list[Values]:
    """m16n8k16."""
    left = np.empty((*a[0].shape[:-1], 16, 16), np.uint32)
    for register, (row, column) in zip(a, ((0, 0), (8, 0), (0, 8), (8, 8)), strict=True):
        left[..., _GROUP + row, 2 * _WITHIN + column] = register << np.uint32(16)
        left[..., _GROUP + row, 2 * _WITHIN + column + 1] = register & np.uint32(0xFFFF0000)
    right = np.empty((*b[0].shape[:-1], 16, 8), np.uint32)
    for register, row in zip(b, (0, 8), strict=True):
        right[..., 2 * _WITHIN + row, _GROUP] = register << np.uint32(16)
        right[..., 2 * _WITHIN + row + 1, _GROUP] = register & np.uint32(0xFFFF0000)
    return _product(left.view(np.float32), right.view(np.float32), c, add)


MMA = {
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32": mma_tf32,
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32": mma_bf16,
}
_PLACES = [(_GROUP, 2 * _WITHIN), (_GROUP, 2 * _WITHIN + 1), (_GROUP + 8, 2 * _WITHIN), (_GROUP + 8, 2 * _WITHIN + 1)]


def _product(left: Values, right: Values, c: Sequence[Values], add: Sum) -> list[Values]:
    total = np.empty((*c[0].shape[:-1], 16, 8), np.uint32)
    for register, (rows, columns) in zip(c, _PLACES, strict=True):
        total[..., rows, columns] = register
    came = add(left, right, total.view(np.float32))
    bits = np.where(np.isnan(came), np.uint32(0x7FFFFFFF), came.view(np.uint32))
    return [bits[..., rows, columns] for rows, columns in _PLACES]


def registers_of(rows: Values, transposed: bool) -> list[Values]:
    """ldmatrix: rows [..., 8 x matrices, 16] bytes, row by row -> the register that each matrix fills."""
    halves = np.ascontiguousarray(rows).view(np.uint16).reshape(*rows.shape[:-2], -1, 8, 8)
    if transposed:
        halves = halves.swapaxes(-1, -2)
    words = np.ascontiguousarray(halves).view(np.uint32)
    return [words[..., matrix, :, :].reshape(*rows.shape[:-2], 32) for matrix in range(words.shape[-3])]


def rows_of(registers: Sequence[Values]) -> Values:
    """stmatrix: the reverse, without transposing."""
    words = np.stack([register.reshape(*register.shape[:-1], 8, 4) for register in registers], axis=-3)
    return np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape[:-3], -1, 16)
