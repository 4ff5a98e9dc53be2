"""Computes one time step of one layer. A program computes a tile of rows and hidden units, with all their gates.

All kernels in this file share these arguments:

    source, source_start   the layer's input: row i of the batch is row source_start + i
    before, gather         the previous states: the arena, gathered by `read` (gather = 1), or the previous step's row
                           buffer (gather = 0), with row i at row i
    after                  the row buffer of this step, never the one that is read
    history, keep          float32 rows of `hidden`, which also receive the top layer's h if keep = 1, from
                           history_start on
    weight, bias           [inputs_depth + hidden_depth, padded, parts] and [padded, parts], padded with zeros: the
                           parts (gates) of a unit are side by side, so that one product computes them all
    layer                  the sizes of a Layer
    M, GROUPS, N, K        the rows of a product; how many products with the same weights a tile has (1 or 2); its
                           columns, parts included; the block of a sum

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
def _places(group, read, batch, gather, WIDTH: tl.constexpr, M: tl.constexpr, GROUPS: tl.constexpr):
    """Returns the rows of a group of this program, which of them are real, and where each row of the previous states
    begins, if these have WIDTH floats."""
    rows, places, real = tile_rows(tl.program_id(0) * GROUPS + group, read, batch, M)
    return rows, real, tl.where(gather != 0, places, rows).to(tl.int64) * WIDTH


@triton.jit
def _sums(
    operands,
    layer: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    GROUPS: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """Returns the sums [M, N] of this program's groups of rows. Both groups are multiplied by the same loaded weights.

    back: what is multiplied besides the input (h, or r h): rows, the floats of one, and the first and number of those
    to be multiplied.
    """
    source, source_start, back, gather, read, weight, bias, batch = operands
    back, BACK_WIDTH, BACK_AT, BACK_UNITS = back
    rows, real, start = _places(0, read, batch, gather, BACK_WIDTH, M, GROUPS)
    rows_2, real_2, start_2 = _places(GROUPS - 1, read, batch, gather, BACK_WIDTH, M, GROUPS)
    source_at = (source_start + rows).to(tl.int64) * layer.source_width + layer.source_at
    source_at_2 = (source_start + rows_2).to(tl.int64) * layer.source_width + layer.source_at
    columns = tl.program_id(1) * N + tl.arange(0, N)
    depth = tl.arange(0, K)
    weights = weight + depth[:, None] * (PARTS * layer.padded) + columns[None, :]
    total = tl.zeros((M, N), tl.float32)
    total_2 = tl.zeros((M, N), tl.float32)
    for k in range(0, layer.inputs_depth, K):
        block = tl.load(weights)
        a = tile_of(source, source_at, real, k + depth, layer.inputs)
        total = product(a, block, total, PRECISION)
        if GROUPS == 2:
            a_2 = tile_of(source, source_at_2, real_2, k + depth, layer.inputs)
            total_2 = product(a_2, block, total_2, PRECISION)
        weights += K * PARTS * layer.padded
    for k in range(0, layer.hidden_depth, K):
        block = tl.load(weights)
        a = tile_of(back, start + BACK_AT, real, k + depth, BACK_UNITS)
        total = product(a, block, total, PRECISION)
        if GROUPS == 2:
            a_2 = tile_of(back, start_2 + BACK_AT, real_2, k + depth, BACK_UNITS)
            total_2 = product(a_2, block, total_2, PRECISION)
        weights += K * PARTS * layer.padded
    biases = tl.load(bias + columns)[None, :]
    return total + biases, total_2 + biases


@triton.jit
def _quarters(sums, M: tl.constexpr, N: tl.constexpr):
    """Returns the four parts of [M, N / 4] units whose parts are side by side."""
    even, odd = tl.split(tl.reshape(sums, (M, N // 4, 2, 2)))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def _units(real, layer: tl.constexpr, N: tl.constexpr):
    """Returns N hidden units of this program, and the mask of rows and units."""
    units = tl.program_id(1) * N + tl.arange(0, N)
    return units, real[:, None] & (units < layer.hidden)[None, :]


@triton.jit
def _keep_h(h, after, history, rows, units, mask, keep, history_start, layer: tl.constexpr):
    tl.store(after + rows.to(tl.int64)[:, None] * layer.row_width + (layer.h_at + units)[None, :], h, mask=mask)
    flat = (history_start + rows).to(tl.int64)
    tl.store(history + flat[:, None] * layer.hidden + units[None, :], h, mask=mask & (keep != 0))


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
    weight,  # parts: i, f, g, o
    bias,
    raw,  # float32 [batch, hidden]: h before the projection, if there is one
    batch,
    layer: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    GROUPS: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    PROJECTED: tl.constexpr,
):
    back = before, layer.row_width, layer.h_at, layer.h_width
    operands = source, source_start, back, gather, read, weight, bias, batch
    sums = _sums(operands, layer, 4, PRECISION, M, GROUPS, N, K)
    for group in tl.static_range(GROUPS):
        rows, real, start = _places(group, read, batch, gather, layer.row_width, M, GROUPS)
        units, mask = _units(real, layer, N // 4)
        i, f, g, o = _quarters(sums[group], M, N)
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        c = tl.load(before + start[:, None] + (layer.c_at + units)[None, :], mask=mask, other=0.0)
        c = f * c + i * g
        h = o * tanh(c)
        tl.store(after + rows.to(tl.int64)[:, None] * layer.row_width + (layer.c_at + units)[None, :], c, mask=mask)
        if PROJECTED:
            tl.store(raw + rows.to(tl.int64)[:, None] * layer.hidden + units[None, :], h, mask=mask)
        else:
            _keep_h(h, after, history, rows, units, mask, keep, history_start, layer)


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
    weight,  # parts: r, z, n of the input, n of h; the last two have weights of zero for the other operand
    bias,
    batch,
    layer: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    GROUPS: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """Applies the reset gate after the product with h: n = tanh(W x + b + r (U h + b'))."""
    back = before, layer.row_width, layer.h_at, layer.h_width
    operands = source, source_start, back, gather, read, weight, bias, batch
    sums = _sums(operands, layer, 4, PRECISION, M, GROUPS, N, K)
    for group in tl.static_range(GROUPS):
        rows, real, start = _places(group, read, batch, gather, layer.row_width, M, GROUPS)
        units, mask = _units(real, layer, N // 4)
        r, z, n, product_with_h = _quarters(sums[group], M, N)
        n = tanh(n + sigmoid(r) * product_with_h)
        h = tl.load(before + start[:, None] + (layer.h_at + units)[None, :], mask=mask, other=0.0)
        _keep_h(n + sigmoid(z) * (h - n), after, history, rows, units, mask, keep, history_start, layer)


@triton.jit(do_not_specialize=RUNTIME_INTEGERS)
def gru_gates(
    source,
    source_start,
    before,
    gather,
    read,
    weight,  # parts: r, z
    bias,
    reset,  # float32 [batch, hidden]: r h
    update,  # float32 [batch, hidden]: z
    batch,
    layer: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    GROUPS: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """Applies the reset gate before the product with h, first half: `gru_candidate` needs r h of all hidden units."""
    back = before, layer.row_width, layer.h_at, layer.h_width
    operands = source, source_start, back, gather, read, weight, bias, batch
    sums = _sums(operands, layer, 2, PRECISION, M, GROUPS, N, K)
    for group in tl.static_range(GROUPS):
        rows, real, start = _places(group, read, batch, gather, layer.row_width, M, GROUPS)
        units, mask = _units(real, layer, N // 2)
        r, z = tl.split(tl.reshape(sums[group], (M, N // 2, 2)))
        h = tl.load(before + start[:, None] + (layer.h_at + units)[None, :], mask=mask, other=0.0)
        flat = rows.to(tl.int64)[:, None] * layer.hidden + units[None, :]
        tl.store(reset + flat, sigmoid(r) * h, mask=mask)
        tl.store(update + flat, sigmoid(z), mask=mask)


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
    GROUPS: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
):
    """Computes the second half: n = tanh(W x + U (r h) + b)."""
    back = reset, layer.hidden, 0, layer.hidden
    operands = source, source_start, back, 0, read, weight, bias, batch
    sums = _sums(operands, layer, 1, PRECISION, M, GROUPS, N, K)
    for group in tl.static_range(GROUPS):
        rows, real, start = _places(group, read, batch, gather, layer.row_width, M, GROUPS)
        units, mask = _units(real, layer, N)
        n = tanh(sums[group])
        h = tl.load(before + start[:, None] + (layer.h_at + units)[None, :], mask=mask, other=0.0)
        z = tl.load(update + rows.to(tl.int64)[:, None] * layer.hidden + units[None, :], mask=mask, other=0.0)
        _keep_h(n + z * (h - n), after, history, rows, units, mask, keep, history_start, layer)


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
    GROUPS: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    RELU: tl.constexpr,
):
    back = before, layer.row_width, layer.h_at, layer.h_width
    operands = source, source_start, back, gather, read, weight, bias, batch
    sums = _sums(operands, layer, 1, PRECISION, M, GROUPS, N, K)
    for group in tl.static_range(GROUPS):
        rows, real, _ = _places(group, read, batch, gather, layer.row_width, M, GROUPS)
        units, mask = _units(real, layer, N)
        h = relu(sums[group]) if RELU else tanh(sums[group])
        _keep_h(h, after, history, rows, units, mask, keep, history_start, layer)
