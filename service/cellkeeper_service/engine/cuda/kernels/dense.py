"""activation(a W + b), for the head's layers over all time steps of a chunk at once, and for a cell's projection.

The bias is added to a sum of several blocks. A sum of one block starts with the bias: Triton makes dot(a, W, b) of it.
"""

import triton
import triton.language as tl

from .pointwise import activation
from .products import product, tile_of


@triton.jit(do_not_specialize=["rows_in_all", "batch", "keep", "history_start"])
def dense(
    source,  # float32 rows of INPUTS
    read,
    weight,  # [DEPTH, N_PADDED], padded with zeros
    bias,  # [N_PADDED]
    out,  # float32 rows of OUT_WIDTH, of which UNITS from OUT_AT on are written
    history,  # float32 rows of UNITS, which also receive the units if keep = 1, from history_start on
    keep,
    history_start,
    rows_in_all,  # time steps x batch
    batch,
    INPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
    UNITS: tl.constexpr,
    N_PADDED: tl.constexpr,
    OUT_WIDTH: tl.constexpr,
    OUT_AT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    rows = tl.program_id(0) * M + tl.arange(0, M)
    real = tl.load(read + rows % batch, mask=rows < rows_in_all, other=-1) >= 0
    columns = tl.program_id(1) * N + tl.arange(0, N)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * N_PADDED + columns[None, :]
    total = tl.zeros((M, N), tl.float32)
    for k in range(0, DEPTH, K):
        a = tile_of(source, rows.to(tl.int64) * INPUTS, real, k + depth, INPUTS)
        total = product(a, tl.load(weights), total, PRECISION)
        weights += K * N_PADDED
    values = activation(total + tl.load(bias + columns)[None, :], ACTIVATION)
    mask = real[:, None] & (columns < UNITS)[None, :]
    tl.store(out + rows.to(tl.int64)[:, None] * OUT_WIDTH + (OUT_AT + columns)[None, :], values, mask=mask)
    flat = (history_start + rows).to(tl.int64)
    tl.store(history + flat[:, None] * UNITS + columns[None, :], values, mask=mask & (keep != 0))
