"""Computes one tile of a matrix product, and loads the tiles of its rows."""

import triton
import triton.language as tl


@triton.jit
def _rounded_to_tf32(a):
    """Rounds to 10 bits of mantissa, halves away from zero. Tensor cores would truncate the other 13, with a bias."""
    bits = (a.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
    return tl.where(a == a, bits.to(tl.float32, bitcast=True), a)  # the carry would turn a NaN of all ones into zero


@triton.jit
def product(a, weight, total, PRECISION: tl.constexpr):
    """Returns total [M, N] + a [M, K] x weight [K, N], summed in float32. weight must be rounded to the precision."""
    if PRECISION == "bf16":
        total = tl.dot(a.to(tl.bfloat16), weight, total)
    elif PRECISION == "tf32":
        total = tl.dot(_rounded_to_tf32(a), weight, total, input_precision="tf32")
    else:
        total = tl.dot(a, weight, total, input_precision="ieee")
    return total


@triton.jit
def tile_rows(tile, read, batch, M: tl.constexpr):
    """Returns a tile's rows, their arena rows, and which are real: neither beyond the batch nor padding."""
    rows = tile * M + tl.arange(0, M)
    places = tl.load(read + rows, mask=rows < batch, other=-1)
    return rows, places, places >= 0


@triton.jit
def tile_of(base, starts, real, columns, WIDTH: tl.constexpr):
    """Loads [M, K] of the rows that begin at `starts`, with zeros for rows that are not real and columns beyond WIDTH.

    Memory there is never loaded, because a NaN times a weight of zero would be NaN.
    """
    mask = real[:, None] & (columns < WIDTH)[None, :]
    return tl.load(base + starts[:, None] + columns[None, :], mask=mask, other=0.0)
