"""Turns raw inputs into the input of the first layer: missing values, normalization, embedding.

`usable` is uint8 [slots, batch]: each program notes in its own slot whether its part of a row is valid.
"""

import triton
import triton.language as tl

from .pointwise import is_finite
from .products import tile_rows


@triton.jit(do_not_specialize=["batch", "steps"])
def take_features(
    inputs,  # float32 [T, batch, F]
    arena,
    read,
    offset,
    scale,
    fill,  # float32 [F]: replaces missing values with the policy "constant"
    prepared,  # float32 [T, batch, PREPARED_WIDTH]
    states,  # the row buffer that `finish` copies from: the held inputs go there
    usable,
    batch,
    steps,  # time steps per program: all of them if missing values are held, otherwise one
    F: tl.constexpr,
    PREPARED_WIDTH: tl.constexpr,
    ROW_WIDTH: tl.constexpr,
    HELD_AT: tl.constexpr,
    POLICY: tl.constexpr,
    NORMALIZED: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    rows, places, real = tile_rows(tl.program_id(0), read, batch, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    inside = columns < F
    mask = real[:, None] & inside[None, :]
    held = tl.zeros((M, N), tl.float32)
    if POLICY == "hold":
        held_columns = HELD_AT + columns
        held = tl.load(arena + places.to(tl.int64)[:, None] * ROW_WIDTH + held_columns[None, :], mask=mask, other=0.0)
    unusable = tl.zeros((M,), tl.int32)
    for step in range(steps if POLICY == "hold" else 1):  # a known number takes fewer registers
        flat = ((tl.program_id(2) * steps + step) * batch + rows).to(tl.int64)
        values = tl.load(inputs + flat[:, None] * F + columns[None, :], mask=mask, other=0.0)
        if POLICY == "hold":
            values = tl.where(values == values, values, held)
            held = values
        if POLICY == "constant":
            constants = tl.load(fill + columns, mask=inside, other=0.0)
            values = tl.where(values == values, values, constants[None, :])
        unusable += tl.sum(tl.where(is_finite(values), 0, 1), axis=1)
        if NORMALIZED:
            shift = tl.load(offset + columns, mask=inside, other=0.0)
            divisor = tl.load(scale + columns, mask=inside, other=1.0)
            values = tl.div_rn(values - shift[None, :], tl.broadcast_to(divisor[None, :], (M, N)))
        tl.store(prepared + flat[:, None] * PREPARED_WIDTH + columns[None, :], values, mask=mask)
    if POLICY == "hold":
        tl.store(states + rows.to(tl.int64)[:, None] * ROW_WIDTH + held_columns[None, :], held, mask=mask)
    slot = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    tl.store(usable + slot * batch + rows, tl.where(unusable == 0, 1, 0).to(tl.uint8), mask=real)


@triton.jit(do_not_specialize=["batch"])
def take_tokens(
    inputs,  # int32 [T, batch]
    read,
    embedding,  # float32 [VOCABULARY, E]
    prepared,  # float32 [T, batch, PREPARED_WIDTH]
    usable,
    batch,
    VOCABULARY: tl.constexpr,
    E: tl.constexpr,
    PREPARED_WIDTH: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """Looks up embeddings. An id out of range is flagged as not usable, and its row gets zeros."""
    rows, _, real = tile_rows(tl.program_id(0), read, batch, M)
    columns = tl.program_id(1) * N + tl.arange(0, N)
    flat = (tl.program_id(2) * batch + rows).to(tl.int64)
    ids = tl.load(inputs + flat, mask=real, other=0)
    known = (ids >= 0) & (ids < VOCABULARY)
    inside = (columns < E)[None, :]
    values = tl.load(
        embedding + ids.to(tl.int64)[:, None] * E + columns[None, :], mask=(real & known)[:, None] & inside, other=0.0
    )
    tl.store(prepared + flat[:, None] * PREPARED_WIDTH + columns[None, :], values, mask=real[:, None] & inside)
    slot = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    tl.store(usable + slot * batch + rows, known.to(tl.uint8), mask=real)
