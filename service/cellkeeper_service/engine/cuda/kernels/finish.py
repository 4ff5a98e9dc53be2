"""The last launch of a chunk: the only one that writes the arena."""

import triton
import triton.language as tl

from .pointwise import is_finite


@triton.jit
def _not_finite(base, WIDTH: tl.constexpr, N: tl.constexpr):
    """Returns how many of WIDTH values are not finite."""
    block = tl.arange(0, N)
    found = tl.zeros((N,), tl.int32)
    for first in range(0, WIDTH, N):
        x = tl.load(base + first + block, mask=first + block < WIDTH, other=0.0)
        found += tl.where(is_finite(x), 0, 1)
    return tl.sum(found, axis=0)


@triton.jit(do_not_specialize=["batch", "steps", "slots"])
def finish(
    states,  # the row buffer of the last step
    read,
    write,
    arena,
    usable,  # uint8 [slots, batch], from `preprocess`
    inputs,  # float32 [steps, batch, F]: raw inputs that nothing has looked at yet
    prediction,  # float32 [steps, batch, UNITS]
    hidden,  # float32 [steps, batch, H]
    finite,  # uint8 [batch]
    batch,
    steps,
    slots,
    ROW_WIDTH: tl.constexpr,
    CELLS_WIDTH: tl.constexpr,
    F: tl.constexpr,  # 0: no such inputs
    UNITS: tl.constexpr,  # 0: not wanted
    H: tl.constexpr,  # 0: not wanted
    N: tl.constexpr,
):
    """Writes one row's state to the arena, and its flag. One program per row."""
    row = tl.program_id(0)
    if tl.load(read + row) >= 0:
        place = tl.load(write + row).to(tl.int64)
        source = states + row.to(tl.int64) * ROW_WIDTH
        block = tl.arange(0, N)
        for first in range(0, ROW_WIDTH, N):
            inside = first + block < ROW_WIDTH
            x = tl.load(source + first + block, mask=inside, other=0.0)
            tl.store(arena + place * ROW_WIDTH + first + block, x, mask=inside)
        bad = _not_finite(source, CELLS_WIDTH, N)
        for slot in range(slots):
            bad += 1 - tl.load(usable + slot * batch + row).to(tl.int32)
        for step in range(steps):
            flat = (step * batch + row).to(tl.int64)
            if F > 0:
                bad += _not_finite(inputs + flat * F, F, N)
            if UNITS > 0:
                bad += _not_finite(prediction + flat * UNITS, UNITS, N)
            if H > 0:
                bad += _not_finite(hidden + flat * H, H, N)
        tl.store(finite + row, (bad == 0).to(tl.uint8))
