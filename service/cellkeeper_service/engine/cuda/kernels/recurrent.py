"""Computes one time step of one layer. A program computes a tile of rows and hidden units, with all their gates.

All kernels in this file share these arguments:

    source, source_start   the layer's input: row i of the batch is row source_start + i
    before, gather         the previous states: the arena, gathered by `read` (gather = 1), or the previous step's row
                           buffer (gather = 0), with row i at row i
    after                  the row buffer of this step, never the one that is read
    history, keep          float32 rows of `hidden`, which also receive the top layer's h if keep = 1, from
                           history_start on
    weight                 [inputs_depth + hidden_depth, gates, padded], padded with zeros; bias [.., padded]
    layer, M, N, K         the sizes of a Layer; the rows and columns of a tile, and the block of a sum

Every sum runs over the inputs first, then over h, in ascending blocks of K, then adds the bias. Nothing else affects
the order: neither the batch nor the number of programs nor the time step.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from .pointwise import relu, sigmoid, tanh
from .products import product, tile_of, tile_rows

RUNTIME_INTEGERS = ["source_start", "gather", "keep", "history_start", "batch"]


class Layer(NamedTuple):
    """The sizes of a layer, in floats.

    inputs: the values of its input, which are those from source_at on of a row of source_width. row_width: of a row of
    states, with h at h_at, and an LSTM's c at c_at. h_width: of this h; less than `hidden` if it is projected.
    inputs_depth, hidden_depth, padded: of the weight.
    """

    inputs: int
    source_width: int
    source_at: int
    hidden: int
    h_width: int
    row_width: int
    h_at: int
    c_at: int
    inputs_depth: int
    hidden_depth: int
    padded: int


@triton.jit
def _places(read, batch, gather, layer: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """Returns this program's rows, which of them are real, its columns, the mask of both, and where each row of the
    previous states begins."""
    rows, places, real = tile_rows(read, batch, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    mask = real[:, None] & (columns < layer.hidden)[None, :]
    start = tl.where(gather != 0, places, rows).to(tl.int64) * layer.row_width
    return rows, real, columns, mask, start


@triton.jit
def _keep_h(h, after, history, rows, columns, mask, keep, history_start, layer: tl.constexpr):
    tl.store(after + rows.to(tl.int64)[:, None] * layer.row_width + (layer.h_at + columns)[None, :], h, mask=mask)
    flat = (history_start + rows).to(tl.int64)
    tl.store(history + flat[:, None] * layer.hidden + columns[None, :], h, mask=mask & (keep != 0))


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
    raw,  # float32 [batch, hidden]: h before the projection, if there is one
    batch,
    layer: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    PROJECTED: tl.constexpr,
):
    rows, real, columns, mask, start = _places(read, batch, gather, layer, M, N)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * (4 * layer.padded) + columns[None, :]
    i = tl.zeros((M, N), tl.float32)
    f = tl.zeros((M, N), tl.float32)
    g = tl.zeros((M, N), tl.float32)
    o = tl.zeros((M, N), tl.float32)
    source_at = (source_start + rows).to(tl.int64) * layer.source_width + layer.source_at
    for k in range(0, layer.inputs_depth, K):
        a = tile_of(source, source_at, real, k + depth, layer.inputs)
        i = product(a, tl.load(weights), i, PRECISION)
        f = product(a, tl.load(weights + layer.padded), f, PRECISION)
        g = product(a, tl.load(weights + 2 * layer.padded), g, PRECISION)
        o = product(a, tl.load(weights + 3 * layer.padded), o, PRECISION)
        weights += K * 4 * layer.padded
    for k in range(0, layer.hidden_depth, K):
        a = tile_of(before, start + layer.h_at, real, k + depth, layer.h_width)
        i = product(a, tl.load(weights), i, PRECISION)
        f = product(a, tl.load(weights + layer.padded), f, PRECISION)
        g = product(a, tl.load(weights + 2 * layer.padded), g, PRECISION)
        o = product(a, tl.load(weights + 3 * layer.padded), o, PRECISION)
        weights += K * 4 * layer.padded
    i = sigmoid(i + tl.load(bias + columns)[None, :])
    f = sigmoid(f + tl.load(bias + layer.padded + columns)[None, :])
    g = tanh(g + tl.load(bias + 2 * layer.padded + columns)[None, :])
    o = sigmoid(o + tl.load(bias + 3 * layer.padded + columns)[None, :])
    c = tl.load(before + start[:, None] + (layer.c_at + columns)[None, :], mask=mask, other=0.0)
    c = f * c + i * g
    h = o * tanh(c)
    tl.store(after + rows.to(tl.int64)[:, None] * layer.row_width + (layer.c_at + columns)[None, :], c, mask=mask)
    if PROJECTED:
        tl.store(raw + rows.to(tl.int64)[:, None] * layer.hidden + columns[None, :], h, mask=mask)
    else:
        _keep_h(h, after, history, rows, columns, mask, keep, history_start, layer)


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
    bias,  # [4, padded]: r and z (sums of both biases), n for the input, n for h
    batch,
    layer: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """Applies the reset gate after the product with h: n = tanh(W x + b + r (U h + b'))."""
    rows, real, columns, mask, start = _places(read, batch, gather, layer, M, N)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * (3 * layer.padded) + columns[None, :]
    r = tl.zeros((M, N), tl.float32)
    z = tl.zeros((M, N), tl.float32)
    n = tl.zeros((M, N), tl.float32)
    back = tl.zeros((M, N), tl.float32)
    source_at = (source_start + rows).to(tl.int64) * layer.source_width + layer.source_at
    for k in range(0, layer.inputs_depth, K):
        a = tile_of(source, source_at, real, k + depth, layer.inputs)
        r = product(a, tl.load(weights), r, PRECISION)
        z = product(a, tl.load(weights + layer.padded), z, PRECISION)
        n = product(a, tl.load(weights + 2 * layer.padded), n, PRECISION)
        weights += K * 3 * layer.padded
    for k in range(0, layer.hidden_depth, K):
        a = tile_of(before, start + layer.h_at, real, k + depth, layer.h_width)
        r = product(a, tl.load(weights), r, PRECISION)
        z = product(a, tl.load(weights + layer.padded), z, PRECISION)
        back = product(a, tl.load(weights + 2 * layer.padded), back, PRECISION)
        weights += K * 3 * layer.padded
    r = sigmoid(r + tl.load(bias + columns)[None, :])
    z = sigmoid(z + tl.load(bias + layer.padded + columns)[None, :])
    n = n + tl.load(bias + 2 * layer.padded + columns)[None, :]
    back = back + tl.load(bias + 3 * layer.padded + columns)[None, :]
    n = tanh(n + r * back)
    h = tl.load(before + start[:, None] + (layer.h_at + columns)[None, :], mask=mask, other=0.0)
    _keep_h(n + z * (h - n), after, history, rows, columns, mask, keep, history_start, layer)


@triton.jit(do_not_specialize=RUNTIME_INTEGERS)
def gru_gates(
    source,
    source_start,
    before,
    gather,
    read,
    weight,
    bias,
    reset,  # float32 [batch, hidden]: r h
    update,  # float32 [batch, hidden]: z
    batch,
    layer: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """Applies the reset gate before the product with h, first half: `gru_candidate` needs r h of all hidden units."""
    rows, real, columns, mask, start = _places(read, batch, gather, layer, M, N)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * (3 * layer.padded) + columns[None, :]
    r = tl.zeros((M, N), tl.float32)
    z = tl.zeros((M, N), tl.float32)
    source_at = (source_start + rows).to(tl.int64) * layer.source_width + layer.source_at
    for k in range(0, layer.inputs_depth, K):
        a = tile_of(source, source_at, real, k + depth, layer.inputs)
        r = product(a, tl.load(weights), r, PRECISION)
        z = product(a, tl.load(weights + layer.padded), z, PRECISION)
        weights += K * 3 * layer.padded
    for k in range(0, layer.hidden_depth, K):
        a = tile_of(before, start + layer.h_at, real, k + depth, layer.h_width)
        r = product(a, tl.load(weights), r, PRECISION)
        z = product(a, tl.load(weights + layer.padded), z, PRECISION)
        weights += K * 3 * layer.padded
    r = sigmoid(r + tl.load(bias + columns)[None, :])
    z = sigmoid(z + tl.load(bias + layer.padded + columns)[None, :])
    h = tl.load(before + start[:, None] + (layer.h_at + columns)[None, :], mask=mask, other=0.0)
    flat = rows.to(tl.int64)[:, None] * layer.hidden + columns[None, :]
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
    layer: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """Computes the second half: n = tanh(W x + U (r h) + b + b')."""
    rows, real, columns, mask, start = _places(read, batch, gather, layer, M, N)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * (3 * layer.padded) + (2 * layer.padded + columns)[None, :]
    n = tl.zeros((M, N), tl.float32)
    source_at = (source_start + rows).to(tl.int64) * layer.source_width + layer.source_at
    for k in range(0, layer.inputs_depth, K):
        a = tile_of(source, source_at, real, k + depth, layer.inputs)
        n = product(a, tl.load(weights), n, PRECISION)
        weights += K * 3 * layer.padded
    for k in range(0, layer.hidden_depth, K):
        a = tile_of(reset, rows.to(tl.int64) * layer.hidden, real, k + depth, layer.hidden)
        n = product(a, tl.load(weights), n, PRECISION)
        weights += K * 3 * layer.padded
    n = n + tl.load(bias + 2 * layer.padded + columns)[None, :]
    n = tanh(n + tl.load(bias + 3 * layer.padded + columns)[None, :])
    h = tl.load(before + start[:, None] + (layer.h_at + columns)[None, :], mask=mask, other=0.0)
    z = tl.load(update + rows.to(tl.int64)[:, None] * layer.hidden + columns[None, :], mask=mask, other=0.0)
    _keep_h(n + z * (h - n), after, history, rows, columns, mask, keep, history_start, layer)


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
    layer: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    RELU: tl.constexpr,
):
    rows, real, columns, mask, start = _places(read, batch, gather, layer, M, N)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * layer.padded + columns[None, :]
    total = tl.zeros((M, N), tl.float32)
    source_at = (source_start + rows).to(tl.int64) * layer.source_width + layer.source_at
    for k in range(0, layer.inputs_depth, K):
        a = tile_of(source, source_at, real, k + depth, layer.inputs)
        total = product(a, tl.load(weights), total, PRECISION)
        weights += K * layer.padded
    for k in range(0, layer.hidden_depth, K):
        a = tile_of(before, start + layer.h_at, real, k + depth, layer.h_width)
        total = product(a, tl.load(weights), total, PRECISION)
        weights += K * layer.padded
    total = total + tl.load(bias + columns)[None, :]
    h = relu(total) if RELU else tanh(total)
    _keep_h(h, after, history, rows, columns, mask, keep, history_start, layer)
