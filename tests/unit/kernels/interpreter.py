"""Makes Triton's interpreter fit to check bits, by replacing some of its operations.

    dot          The original is one BLAS call, whose bits depend on the row's place in the tile, and which multiplies
                 the bit patterns of bfloat16. Here: products in float32, added in turn over k in ascending order.
    to bfloat16  The original does not carry a rounded mantissa into the exponent.
    patches      The original patches triton.language at each launch and each call between functions, which is slow.
                 Here: once.
    __index__    The original does not support a NumPy that converts only arrays without axes to an int.
    types        The original makes the types of its blocks anew at each operation, with a name and a type for each of
                 their sizes, and a table of all dtypes: three quarters of its time. Here: once per dtype and shape.
    operands     The original compares two operands of one type with each other, too, and broadcasts them. Here: not.
    overflow     The original computes each sum, difference and product of integers once more in int64, operation by
                 operation, to see whether it fits: a quarter of its time. Then it does not look at the result. Here:
                 NumPy computes it, and the launch fails if it does not fit.

Thus the interpreter shows which values the kernels combine and in which order. The tensor cores' own order within a
block (tf32, bf16) and the compiler's effects show only on a device.
"""

from __future__ import annotations

import math
import os
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def install() -> None:
    """Replaces the operations. Call it once per process."""
    # Otherwise the first launch imports it, after the patches, where Python 3.10 has no signature for what it looks at.
    import triton.experimental.gluon  # noqa: F401
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
    _make_types_once()
    _check_operands_less()
    probe = FunctionType(install.__code__, {"tl": tl, "core": tl.core})
    interpreter._patch_lang(probe)
    tl.tensor.__index__ = lambda self: int(self.handle.data.item())
    interpreter._patch_lang = lambda function: interpreter._LangPatchScope()


def _make_types_once() -> None:
    """Nothing changes a type once it is made, so that all values of a dtype and a shape can share one."""
    from triton.language import core
    from triton.runtime import interpreter

    own_block, own_tuple, own_attribute = core.block_type.__init__, core.tuple.__init__, core.tuple.__getattr__
    own_dtype = cache(interpreter._get_np_dtype)
    blocks: dict[tuple[Any, ...], Any] = {}

    def block(cls: Any, element: Any, shape: Any) -> Any:
        if element.is_ptr():  # its name does not tell its address space
            return object.__new__(cls)
        key = (element.name, *(getattr(size, "value", size) for size in shape))
        if key not in blocks:
            blocks[key] = object.__new__(cls)
        return blocks[key]

    def block_once(self: Any, element: Any, shape: Any) -> None:
        if not hasattr(self, "name"):
            own_block(self, element, shape)

    def tensor(self: Any, handle: Any, of: Any) -> None:
        if not hasattr(of, "of_tensors"):
            sizes = of.shape if of.is_block() else ()
            of.of_tensors = core.tuple([core.constexpr(size) for size in sizes]), core.constexpr(math.prod(sizes))
        self.handle, self.type, self.dtype = handle, of, of.scalar
        self.shape, self.numel = of.of_tensors

    def tuple_of_values(self: Any, values: Any, of: Any = None) -> None:
        if of is None:
            self.values = list(values)
        else:
            own_tuple(self, values, of)

    def attribute(self: Any, name: str) -> Any:
        if name != "type":
            return own_attribute(self, name)
        self.type = core._type_for_tuple_values(self.values)  # few are ever asked for it
        return self.type

    def dtype(of: Any) -> Any:
        return np.dtype(np.uint64) if of.scalar.is_ptr() else own_dtype(of.scalar)

    core.block_type.__new__, core.block_type.__init__ = block, block_once
    core.tensor.__init__ = tensor
    core.tuple.__init__, core.tuple.__getattr__ = tuple_of_values, attribute
    interpreter._get_np_dtype = dtype


def _check_operands_less() -> None:
    from triton.language import core
    from triton.language.semantic import TritonSemantic

    own_operands = TritonSemantic.binary_op_type_checking_impl
    operations = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
    arithmetic = (core.float32, core.int32)  # no pointers, and nothing that a division would promote

    def operands(self: Any, left: Any, right: Any, *rules: Any, **named: Any) -> Any:
        both_tensors = isinstance(left, core.tensor) and isinstance(right, core.tensor)
        if both_tensors and left.type is right.type and left.dtype in arithmetic:
            return left, right
        return own_operands(self, left, right, *rules, **named)

    def overflow(self: Any, left: Any, right: Any, operation: Any) -> None:
        if left.dtype.int_bitwidth >= 64:
            return
        exact = operations[operation.__name__](left.handle.data, right.handle.data, dtype=np.int64)
        bounds = np.iinfo(left.handle.data.dtype)
        if exact.min() < bounds.min or exact.max() > bounds.max:
            raise OverflowError(f"{operation.__name__} of {left.dtype}: {exact.min()} to {exact.max()}")

    TritonSemantic.binary_op_type_checking_impl = operands
    TritonSemantic.binary_op_sanitize_overflow_impl = overflow


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
