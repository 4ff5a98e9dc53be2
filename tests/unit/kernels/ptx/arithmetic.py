"""What one PTX instruction computes of its operands: NumPy arrays of the threads' values.

Floats follow IEEE: round to nearest even, denormals kept, and a NaN that is computed is 0x7FFFFFFF, as on NVIDIA's
devices. Integers wrap around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]

_NAN = np.array(0x7FFFFFFF, np.uint32).view(np.float32)
_LEAST_28_BITS = np.int64(0x0FFFFFFF)


def fma(a: Values, b: Values, c: Values) -> Values:
    """Returns a * b + c, rounded once.

    The product is exact in float64, but the sum is rounded to float64 first. That changes the result only if the sum
    then lies exactly halfway between two float32, and the exact sum beside it. Such a sum ends in 28 zero bits.
    """
    product = np.multiply(a, b, dtype=np.float64)
    total = product + c
    if np.bitwise_and(total.view(np.int64), _LEAST_28_BITS).all():
        return total.astype(np.float32)
    product, addend, total = (np.array(part) for part in np.broadcast_arrays(product, c.astype(np.float64), total))
    rest = total - product
    error = (product - (total - rest)) + (addend - rest)
    beside = np.isfinite(total) & (error != 0)
    total[beside] = np.nextafter(total[beside], np.copysign(np.inf, error[beside]))
    return _canonical(total.astype(np.float32))


def _canonical(values: Values) -> Values:
    missing = np.isnan(values)
    return np.where(missing, _NAN, values) if missing.any() else values


def _minimum(a: Values, b: Values) -> Values:
    """A number, if only one is; -0 is less than +0."""
    lower = np.where(a == b, (a.view(np.uint32) | b.view(np.uint32)).view(np.float32), np.fmin(a, b))
    return _canonical(lower)


def _maximum(a: Values, b: Values) -> Values:
    return _canonical(-_minimum(-a, -b))


def _floor(values: Values) -> Values:
    """With .ftz: a denormal counts as a zero of its sign."""
    flushed = np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), values), values)
    return _canonical(np.floor(flushed))


def _truncated(values: Values) -> Values:
    """Converts to int32: what is out of range becomes its bound, NaN 0."""
    bounded = np.clip(np.trunc(values.astype(np.float64)), -(2.0**31), 2.0**31 - 1)
    return np.where(np.isnan(values), 0.0, bounded).astype(np.int32)


def to_bfloat16(values: Values) -> Values:
    """Returns the bits, as uint32, rounded to nearest even."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FFF), rounded)


def _bit_field(value: Values, start: Values, length: Values) -> Values:
    if ((start + length > 32) | (length == 0)).any():
        raise ValueError("bfe beyond the 32 bits is not supported")
    return (value >> start) & np.uint32((1 << int(length.max())) - 1)


def _signed_bit_field(value: Values, start: Values, length: Values) -> Values:
    left = np.uint32(32) - length
    return ((_bit_field(value, start, length) << left).view(np.int32) >> left.view(np.int32)).view(np.uint32)


def _bits_set(values: Values) -> Values:
    octets = np.ascontiguousarray(values)[..., None].view(np.uint8)
    return np.asarray(np.unpackbits(octets, axis=-1).sum(axis=-1, dtype=np.uint32))


def _remainder(a: Values, b: Values) -> Values:
    if (b == 0).any():
        raise ZeroDivisionError("rem.s32 by zero")
    return np.fmod(a, b)


@dataclass(frozen=True, slots=True)
class Operation:
    """types: of the result, then of the operands. p: predicate; h: 16 bits; u, s: uint32, int32; U, S: the same of 64
    bits; f: float32."""

    types: str
    compute: Callable[..., Any]


TYPES: dict[str, Any] = {
    "p": np.bool_,
    "h": np.uint16,
    "u": np.uint32,
    "s": np.int32,
    "U": np.uint64,
    "S": np.int64,
    "f": np.float32,
}


def _wide(kind: Any) -> Callable[..., Values]:
    def multiply_add(a: Values, b: Values, c: Values | int = 0) -> Values:
        return np.asarray(a.astype(kind) * b.astype(kind) + c)

    return multiply_add


def _pick(a: Values, b: Values, which: Values) -> Values:
    return np.where(which, a, b)


OPERATIONS: dict[str, Operation] = {
    "abs.f32": Operation("ff", np.abs),
    "add.f32": Operation("fff", lambda a, b: _canonical(a + b)),
    "sub.f32": Operation("fff", lambda a, b: _canonical(a - b)),
    "mul.f32": Operation("fff", lambda a, b: _canonical(a * b)),
    "div.rn.f32": Operation("fff", lambda a, b: _canonical(a / b)),
    "fma.rn.f32": Operation("ffff", fma),
    "min.f32": Operation("fff", _minimum),
    "max.f32": Operation("fff", _maximum),
    "neg.f32": Operation("ff", np.negative),
    "add.s32": Operation("uuu", np.add),
    "sub.s32": Operation("uuu", np.subtract),
    "neg.s32": Operation("uu", lambda a: np.uint32(0) - a),
    "mul.lo.s32": Operation("uuu", np.multiply),
    "mad.lo.s32": Operation("uuuu", lambda a, b, c: a * b + c),
    "rem.s32": Operation("sss", _remainder),
    "add.s64": Operation("UUU", np.add),
    "sub.s64": Operation("UUU", np.subtract),
    "mul.lo.s64": Operation("UUU", np.multiply),
    "mad.lo.s64": Operation("UUUU", lambda a, b, c: a * b + c),
    "mul.wide.s32": Operation("Sss", _wide(np.int64)),
    "mul.wide.u32": Operation("Uuu", _wide(np.uint64)),
    "mad.wide.s32": Operation("SssS", _wide(np.int64)),
    "mad.wide.u32": Operation("UuuU", _wide(np.uint64)),
    "bfe.u32": Operation("uuuu", _bit_field),
    "bfe.s32": Operation("uuuu", _signed_bit_field),
    "popc.b32": Operation("uu", _bits_set),
    "and.pred": Operation("ppp", np.logical_and),
    "or.pred": Operation("ppp", np.logical_or),
    "xor.pred": Operation("ppp", np.logical_xor),
    "not.pred": Operation("pp", np.logical_not),
    "mov.pred": Operation("pp", np.array),
    "mov.u16": Operation("hh", np.array),
    "mov.b16": Operation("hh", np.array),
    "mov.u32": Operation("uu", np.array),
    "mov.b32": Operation("uu", np.array),
    "mov.b64": Operation("UU", np.array),
    "cvt.s64.s32": Operation("Ss", lambda a: a.astype(np.int64)),
    "cvt.u64.u32": Operation("Uu", lambda a: a.astype(np.uint64)),
    "cvt.u32.u64": Operation("uU", lambda a: a.astype(np.uint32)),
    "cvt.u32.u16": Operation("uh", lambda a: a.astype(np.uint32)),
    "cvt.u16.u32": Operation("hu", lambda a: a.astype(np.uint16)),
    "cvt.rmi.ftz.f32.f32": Operation("ff", _floor),
    "cvt.rzi.s32.f32": Operation("sf", _truncated),
    "cvt.rn.bf16x2.f32": Operation("uff", lambda a, b: (to_bfloat16(a) << np.uint32(16)) | to_bfloat16(b)),
    "selp.b16": Operation("hhhp", _pick),
    "selp.b32": Operation("uuup", _pick),
    "selp.b64": Operation("UUUp", _pick),
    "selp.f32": Operation("fffp", _pick),
    "shl.b16": Operation("hhu", lambda a, b: (a.astype(np.uint32) << b).astype(np.uint16)),
    "shl.b32": Operation("uuu", np.left_shift),
    "shl.b64": Operation("UUu", lambda a, b: a << b.astype(np.uint64)),
    "shr.u32": Operation("uuu", np.right_shift),
    "shr.s32": Operation("ssu", lambda a, b: a >> np.minimum(b, 31).astype(np.int32)),
    "shr.u64": Operation("UUu", lambda a, b: a >> b.astype(np.uint64)),
}
_BITWISE: dict[str, Callable[..., Values]] = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
for _name, _function in _BITWISE.items():
    for _bits, _letter in {"b16": "h", "b32": "u", "b64": "U"}.items():
        OPERATIONS[f"{_name}.{_bits}"] = Operation(3 * _letter, _function)
_COMPARISONS: dict[str, Callable[..., Values]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
for _name, _function in _COMPARISONS.items():
    for _kind, _letter in {"b16": "h", "b32": "u", "b64": "U", "u32": "u", "s32": "s", "u64": "U", "s64": "S"}.items():
        OPERATIONS[f"setp.{_name}.{_kind}"] = Operation("p" + 2 * _letter, _function)
    OPERATIONS[f"setp.{_name}u.f32"] = Operation(
        "pff", lambda a, b, compare=_function: compare(a, b) | np.isnan(a) | np.isnan(b)
    )
    OPERATIONS[f"setp.{_name}.f32"] = Operation("pff", _function)
OPERATIONS["setp.ne.f32"] = Operation("pff", lambda a, b: (a < b) | (a > b))
OPERATIONS["setp.nan.f32"] = Operation("pff", lambda a, b: np.isnan(a) | np.isnan(b))
OPERATIONS["setp.num.f32"] = Operation("pff", lambda a, b: ~(np.isnan(a) | np.isnan(b)))
