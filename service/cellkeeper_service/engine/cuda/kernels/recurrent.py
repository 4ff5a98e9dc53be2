"""Computes one time step of one layer. A program computes M rows and N hidden units, with all their gates.

All kernels in this file share these arguments:

    source, source_start   the layer's input: float32 rows of SOURCE_WIDTH, of which it uses INPUTS from SOURCE_AT on;
                           row i of the batch is row source_start + i
    before, gather         the previous states: the arena, gathered by `read` (gather = 1), or the previous step's row
                           buffer (gather = 0), with row i at row i; ROW_WIDTH floats per row: h at H_AT, c at C_AT
    after                  the row buffer of this step, never the one that is read
    history, keep          float32 rows of H, which also receive the top layer's h if keep = 1, from history_start on
    weight                 [INPUTS_DEPTH + HIDDEN_DEPTH, gates, N_PADDED], padded with zeros; bias [.., N_PADDED]

Every sum runs over the inputs first, then over h, in ascending blocks of K, then adds the bias. Nothing else affects
the order: neither the batch nor the number of programs nor the time step.
"""

import triton
import triton.language as tl

from .pointwise import relu, sigmoid, tanh
from .products import product, tile_of, tile_rows

RUNTIME_INTEGERS = ["source_start", "gather", "keep", "history_start", "batch"]


@triton.jit
def _start_of(rows, places, gather, ROW_WIDTH: tl.constexpr):
    """Returns where each row of the previous states begins."""
    return tl.where(gather != 0, places, rows).to(tl.int64) * ROW_WIDTH


@triton.jit
def _keep_h(
    h,
    after,
    history,
    rows,
    columns,
    mask,
    keep,
    history_start,
    H: tl.constexpr,
    H_AT: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
):
    tl.store(after + rows.to(tl.int64)[:, None] * ROW_WIDTH + (H_AT + columns)[None, :], h, mask=mask)
    flat = (history_start + rows).to(tl.int64)
    tl.store(history + flat[:, None] * H + columns[None, :], h, mask=mask & (keep != 0))


@triton.jit(do_not_specialize=RUNTIME_INTEGERS)
def lstm(
    source,
    source_start,
    before,
    gather,
    after,
    history,
    keep,
    history_start,
    read,
    weight,
    bias,
    raw,  # float32 [batch, H]: h before the projection, if there is one
    batch,
    INPUTS: tl.constexpr,
    SOURCE_WIDTH: tl.constexpr,
    SOURCE_AT: tl.constexpr,
    H: tl.constexpr,
    H_WIDTH: tl.constexpr,  # width of the h in the state: the projection's size, if there is one
    PROJECTED: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    H_AT: tl.constexpr,
    C_AT: tl.constexpr,
    INPUTS_DEPTH: tl.constexpr,
    HIDDEN_DEPTH: tl.constexpr,
    N_PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    rows, places, real = tile_rows(read, batch, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    mask = real[:, None] & (columns < H)[None, :]
    start = _start_of(rows, places, gather, ROW_WIDTH)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * (4 * N_PADDED) + columns[None, :]
    i = tl.zeros((M, N), tl.float32)
    f = tl.zeros((M, N), tl.float32)
    g = tl.zeros((M, N), tl.float32)
    o = tl.zeros((M, N), tl.float32)
    source_at = (source_start + rows).to(tl.int64) * SOURCE_WIDTH + SOURCE_AT
    for k in range(0, INPUTS_DEPTH, K):
        a = tile_of(source, source_at, real, k + depth, INPUTS)
        i = product(a, tl.load(weights), i, PRECISION)
        f = product(a, tl.load(weights + N_PADDED), f, PRECISION)
        g = product(a, tl.load(weights + 2 * N_PADDED), g, PRECISION)
        o = product(a, tl.load(weights + 3 * N_PADDED), o, PRECISION)
        weights += K * 4 * N_PADDED
    for k in range(0, HIDDEN_DEPTH, K):
        a = tile_of(before, start + H_AT, real, k + depth, H_WIDTH)
        i = product(a, tl.load(weights), i, PRECISION)
        f = product(a, tl.load(weights + N_PADDED), f, PRECISION)
        g = product(a, tl.load(weights + 2 * N_PADDED), g, PRECISION)
        o = product(a, tl.load(weights + 3 * N_PADDED), o, PRECISION)
        weights += K * 4 * N_PADDED
    i = sigmoid(i + tl.load(bias + columns)[None, :])
    f = sigmoid(f + tl.load(bias + N_PADDED + columns)[None, :])
    g = tanh(g + tl.load(bias + 2 * N_PADDED + columns)[None, :])
    o = sigmoid(o + tl.load(bias + 3 * N_PADDED + columns)[None, :])
    c = tl.load(before + start[:, None] + (C_AT + columns)[None, :], mask=mask, other=0.0)
    c = f * c + i * g
    h = o * tanh(c)
    tl.store(after + rows.to(tl.int64)[:, None] * ROW_WIDTH + (C_AT + columns)[None, :], c, mask=mask)
    if PROJECTED:
        tl.store(raw + rows.to(tl.int64)[:, None] * H + columns[None, :], h, mask=mask)
    else:
        _keep_h(h, after, history, rows, columns, mask, keep, history_start, H, H_AT, ROW_WIDTH)


@triton.jit(do_not_specialize=RUNTIME_INTEGERS)
def gru(
    source,
    source_start,
    before,
    gather,
    after,
    history,
    keep,
    history_start,
    read,
    weight,
    bias,  # [4, N_PADDED]: r and z (sums of both biases), n for the input, n for h
    batch,
    INPUTS: tl.constexpr,
    SOURCE_WIDTH: tl.constexpr,
    SOURCE_AT: tl.constexpr,
    H: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    H_AT: tl.constexpr,
    INPUTS_DEPTH: tl.constexpr,
    HIDDEN_DEPTH: tl.constexpr,
    N_PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """Applies the reset gate after the product with h: n = tanh(W x + b + r (U h + b'))."""
    rows, places, real = tile_rows(read, batch, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    mask = real[:, None] & (columns < H)[None, :]
    start = _start_of(rows, places, gather, ROW_WIDTH)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * (3 * N_PADDED) + columns[None, :]
    r = tl.zeros((M, N), tl.float32)
    z = tl.zeros((M, N), tl.float32)
    n = tl.zeros((M, N), tl.float32)
    back = tl.zeros((M, N), tl.float32)
    source_at = (source_start + rows).to(tl.int64) * SOURCE_WIDTH + SOURCE_AT
    for k in range(0, INPUTS_DEPTH, K):
        a = tile_of(source, source_at, real, k + depth, INPUTS)
        r = product(a, tl.load(weights), r, PRECISION)
        z = product(a, tl.load(weights + N_PADDED), z, PRECISION)
        n = product(a, tl.load(weights + 2 * N_PADDED), n, PRECISION)
        weights += K * 3 * N_PADDED
    for k in range(0, HIDDEN_DEPTH, K):
        a = tile_of(before, start + H_AT, real, k + depth, H)
        r = product(a, tl.load(weights), r, PRECISION)
        z = product(a, tl.load(weights + N_PADDED), z, PRECISION)
        back = product(a, tl.load(weights + 2 * N_PADDED), back, PRECISION)
        weights += K * 3 * N_PADDED
    r = sigmoid(r + tl.load(bias + columns)[None, :])
    z = sigmoid(z + tl.load(bias + N_PADDED + columns)[None, :])
    n = n + tl.load(bias + 2 * N_PADDED + columns)[None, :]
    back = back + tl.load(bias + 3 * N_PADDED + columns)[None, :]
    n = tanh(n + r * back)
    h = tl.load(before + start[:, None] + (H_AT + columns)[None, :], mask=mask, other=0.0)
    _keep_h(n + z * (h - n), after, history, rows, columns, mask, keep, history_start, H, H_AT, ROW_WIDTH)


@triton.jit(do_not_specialize=RUNTIME_INTEGERS)
def gru_gates(
    source,
    source_start,
    before,
    gather,
    read,
    weight,
    bias,
    reset,  # float32 [batch, H]: r h
    update,  # float32 [batch, H]: z
    batch,
    INPUTS: tl.constexpr,
    SOURCE_WIDTH: tl.constexpr,
    SOURCE_AT: tl.constexpr,
    H: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    H_AT: tl.constexpr,
    INPUTS_DEPTH: tl.constexpr,
    HIDDEN_DEPTH: tl.constexpr,
    N_PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """Applies the reset gate before the product with h, first half: `gru_candidate` needs r h of all hidden units."""
    rows, places, real = tile_rows(read, batch, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    mask = real[:, None] & (columns < H)[None, :]
    start = _start_of(rows, places, gather, ROW_WIDTH)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * (3 * N_PADDED) + columns[None, :]
    r = tl.zeros((M, N), tl.float32)
    z = tl.zeros((M, N), tl.float32)
    source_at = (source_start + rows).to(tl.int64) * SOURCE_WIDTH + SOURCE_AT
    for k in range(0, INPUTS_DEPTH, K):
        a = tile_of(source, source_at, real, k + depth, INPUTS)
        r = product(a, tl.load(weights), r, PRECISION)
        z = product(a, tl.load(weights + N_PADDED), z, PRECISION)
        weights += K * 3 * N_PADDED
    for k in range(0, HIDDEN_DEPTH, K):
        a = tile_of(before, start + H_AT, real, k + depth, H)
        r = product(a, tl.load(weights), r, PRECISION)
        z = product(a, tl.load(weights + N_PADDED), z, PRECISION)
        weights += K * 3 * N_PADDED
    r = sigmoid(r + tl.load(bias + columns)[None, :])
    z = sigmoid(z + tl.load(bias + N_PADDED + columns)[None, :])
    h = tl.load(before + start[:, None] + (H_AT + columns)[None, :], mask=mask, other=0.0)
    flat = rows.to(tl.int64)[:, None] * H + columns[None, :]
    tl.store(reset + flat, r * h, mask=mask)
    tl.store(update + flat, z, mask=mask)


@triton.jit(do_not_specialize=RUNTIME_INTEGERS)
def gru_candidate(
    source,
    source_start,
    before,
    gather,
    after,
    history,
    keep,
    history_start,
    read,
    weight,
    bias,
    reset,
    update,
    batch,
    INPUTS: tl.constexpr,
    SOURCE_WIDTH: tl.constexpr,
    SOURCE_AT: tl.constexpr,
    H: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    H_AT: tl.constexpr,
    INPUTS_DEPTH: tl.constexpr,
    HIDDEN_DEPTH: tl.constexpr,
    N_PADDED: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """Computes the second half: n = tanh(W x + U (r h) + b + b')."""
    rows, places, real = tile_rows(read, batch, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    mask = real[:, None] & (columns < H)[None, :]
    start = _start_of(rows, places, gather, ROW_WIDTH)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * (3 * N_PADDED) + (2 * N_PADDED + columns)[None, :]
    n = tl.zeros((M, N), tl.float32)
    source_at = (source_start + rows).to(tl.int64) * SOURCE_WIDTH + SOURCE_AT
    for k in range(0, INPUTS_DEPTH, K):
        n = product(tile_of(source, source_at, real, k + depth, INPUTS), tl.load(weights), n, PRECISION)
        weights += K * 3 * N_PADDED
    for k in range(0, HIDDEN_DEPTH, K):
        n = product(tile_of(reset, rows.to(tl.int64) * H, real, k + depth, H), tl.load(weights), n, PRECISION)
        weights += K * 3 * N_PADDED
    n = n + tl.load(bias + 2 * N_PADDED + columns)[None, :]
    n = tanh(n + tl.load(bias + 3 * N_PADDED + columns)[None, :])
    h = tl.load(before + start[:, None] + (H_AT + columns)[None, :], mask=mask, other=0.0)
    z = tl.load(update + rows.to(tl.int64)[:, None] * H + columns[None, :], mask=mask, other=0.0)
    _keep_h(n + z * (h - n), after, history, rows, columns, mask, keep, history_start, H, H_AT, ROW_WIDTH)


@triton.jit(do_not_specialize=RUNTIME_INTEGERS)
def rnn(
    source,
    source_start,
    before,
    gather,
    after,
    history,
    keep,
    history_start,
    read,
    weight,
    bias,
    batch,
    INPUTS: tl.constexpr,
    SOURCE_WIDTH: tl.constexpr,
    SOURCE_AT: tl.constexpr,
    H: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    H_AT: tl.constexpr,
    INPUTS_DEPTH: tl.constexpr,
    HIDDEN_DEPTH: tl.constexpr,
    N_PADDED: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    rows, places, real = tile_rows(read, batch, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    mask = real[:, None] & (columns < H)[None, :]
    start = _start_of(rows, places, gather, ROW_WIDTH)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * N_PADDED + columns[None, :]
    total = tl.zeros((M, N), tl.float32)
    source_at = (source_start + rows).to(tl.int64) * SOURCE_WIDTH + SOURCE_AT
    for k in range(0, INPUTS_DEPTH, K):
        total = product(tile_of(source, source_at, real, k + depth, INPUTS), tl.load(weights), total, PRECISION)
        weights += K * N_PADDED
    for k in range(0, HIDDEN_DEPTH, K):
        total = product(tile_of(before, start + H_AT, real, k + depth, H), tl.load(weights), total, PRECISION)
        weights += K * N_PADDED
    total = total + tl.load(bias + columns)[None, :]
    h = relu(total) if RELU else tanh(total)
    _keep_h(h, after, history, rows, columns, mask, keep, history_start, H, H_AT, ROW_WIDTH)
