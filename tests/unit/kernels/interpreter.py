"""Makes Triton's interpreter fit to check bits, by replacing some of its operations.

    dot          The original is one BLAS call, whose bits depend on the row's place in the tile, and which multiplies
                 the bit patterns of bfloat16. Here: products in float32, added in turn over k in ascending order.
    to bfloat16  The original does not carry a rounded mantissa into the exponent.
    patches      The original patches triton.language at each launch and each call between functions, which is slow.
                 Here: once.
    __index__    The original does not support a NumPy that converts only arrays without axes to an int.

Thus the interpreter shows which values the kernels combine and in which order. The tensor cores' own order within a
block (tf32, bf16) and the compiler's effects show only on a device.
"""

from __future__ import annotations

import os
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def install() -> None:
    """Replaces the operations. Call it once per process."""
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    own_cast = builder.cast_impl

    def cast(self: Any, source: Any, target: Any) -> Any:
        if (source.dtype.scalar, target.scalar) == (tl.float32, tl.bfloat16):
            return interpreter.TensorHandle(_to_bfloat16(source.data), tl.bfloat16)
        return own_cast(self, source, target)

    def cast_rounding(self: Any, source: Any, target: Any, rounding: Any) -> Any:
        del rounding
        return cast(self, source, target)

    def dot(self: Any, a: Any, b: Any, total: Any, input_precision: Any, imprecise: Any) -> Any:
        del self, input_precision, imprecise
        return interpreter.TensorHandle(_dot(_to_float32(a.data), _to_float32(b.data), total.data), tl.float32)

    builder.create_dot = dot
    builder.create_fp_trunc, builder.create_fp_to_fp = cast, cast_rounding
    probe = FunctionType(install.__code__, {"tl": tl, "core": tl.core})
    interpreter._patch_lang(probe)
    tl.tensor.__index__ = lambda self: int(self.handle.data.item())
    interpreter._patch_lang = lambda function: interpreter._LangPatchScope()


def _dot(a: NDArray[np.float32], b: NDArray[np.float32], total: NDArray[np.float32]) -> NDArray[np.float32]:
    terms = np.concatenate([total[None], a.T[:, :, None] * b[:, None, :]])
    # add.reduce adds whole slices in order if the first of several axes is reduced
    return np.asarray(np.add.reduce(terms, axis=0))


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounds to nearest, halves to even. NaN stays NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(values, np.float32)
