"""The tile of a kernel's program. It is part of what decides the bits, so it depends only on model and precision."""

from __future__ import annotations

from dataclasses import dataclass

from cellkeeper_service.engine.precision import Precision


@dataclass(frozen=True, slots=True)
class Tile:
    """The part of a product that one program computes: rows x columns of the result (of every gate), with the sum in
    blocks of `depth`."""

    rows: int
    columns: int
    depth: int
    warps: int

    def padded_depth(self, width: int) -> int:
        return -(-width // self.depth) * self.depth

    def padded_columns(self, width: int) -> int:
        return -(-width // self.columns) * self.columns

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}w{self.warps}"


def tile_of(columns: int, precision: Precision) -> Tile:
    """Returns the tile of a product with so many columns (hidden units; units of a dense layer).

    Small products need many programs. In large ones each weight should serve many rows: with fewer than 64, fp32 loads
    it from the cache too often; with 4 warps, that tile does not fit in the registers. On tensor cores, 64 rows would
    become asynchronous products (wgmma) on compute capability 9.0, which Triton 3.6 and its ptxas get wrong: they reuse
    the registers of an operand that is still read (triton#9433, triton#11781). The limits come from such arithmetic and
    from compiler reports, not from measurements. They can be changed freely, but then a model has other numerics.
    """
    depth = 64 if precision == "bf16" else 32
    if columns < 128:
        return Tile(16, 16, depth, 4)
    if columns < 512:
        return Tile(16, 32, depth, 4)
    return Tile(64, 32, depth, 8) if precision == "fp32" else Tile(32, 32, depth, 4)
