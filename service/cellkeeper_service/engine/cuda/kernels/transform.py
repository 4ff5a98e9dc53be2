"""The output transforms: a chain of operations on each unit, then a softmax over the units if wanted."""

import triton
import triton.language as tl

from .pointwise import exp, expm1, sinh


@triton.jit
def _chain(source, values, columns, inside, UNITS: tl.constexpr, OPS: tl.constexpr):
    x = tl.load(source + columns, mask=inside, other=0.0)
    for i in tl.static_range(len(OPS)):
        value = tl.load(values + i * UNITS + columns, mask=inside, other=0.0)
        if OPS[i] == "scale":
            x = x * value
        if OPS[i] == "offset":
            x = x + value
        if OPS[i] == "clip_min":
            x = tl.where(x < value, value, x)  # NaN stays NaN
        if OPS[i] == "exp":
            x = exp(x)
        if OPS[i] == "expm1":
            x = expm1(x)
        if OPS[i] == "sinh":
            x = sinh(x)
    return x


@triton.jit(do_not_specialize=["batch"])
def transform(
    source,  # float32 rows of UNITS
    read,
    values,  # float32 [operations, UNITS]: an operation's value for each unit, if it takes one
    out,  # float32 rows of UNITS
    batch,
    UNITS: tl.constexpr,
    OPS: tl.constexpr,
    SOFTMAX: tl.constexpr,
    N: tl.constexpr,
):
    """Transforms one row per program, in blocks of N units. A softmax makes three passes: maximum, sum, quotient."""
    row = tl.program_id(0)
    real = tl.load(read + row % batch) >= 0
    source += row.to(tl.int64) * UNITS
    out += row.to(tl.int64) * UNITS
    block = tl.arange(0, N)
    if SOFTMAX:
        largest = tl.full((N,), float("-inf"), tl.float32)
        broken = tl.zeros((N,), tl.float32)  # keeps NaN of any unit, which the maximum may drop
        for first in range(0, UNITS, N):
            inside = (first + block < UNITS) & real
            x = _chain(source, values, first + block, inside, UNITS, OPS)
            largest = tl.where(inside & (x > largest), x, largest)
            broken += tl.where(inside & (x != x), x, 0.0)
        peak = tl.max(largest, axis=0) + tl.sum(broken, axis=0)
        sums = tl.zeros((N,), tl.float32)
        for first in range(0, UNITS, N):
            inside = (first + block < UNITS) & real
            x = _chain(source, values, first + block, inside, UNITS, OPS)
            sums += tl.where(inside, exp(x - peak), 0.0)
        total = tl.sum(sums, axis=0)
    for first in range(0, UNITS, N):
        inside = (first + block < UNITS) & real
        x = _chain(source, values, first + block, inside, UNITS, OPS)
        if SOFTMAX:
            x = tl.div_rn(exp(x - peak), total)
        tl.store(out + first + block, x, mask=inside)
