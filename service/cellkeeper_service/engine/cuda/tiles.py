"""The tile of a kernel's program. It is part of what decides the bits, so it depends only on model and precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cellkeeper_service.engine.precision import Precision


@dataclass(frozen=True, slots=True)
class Tile:
    """The part of a product that one program computes: rows x columns of the result, with the sum in blocks of `depth`.

    groups: in how many products the rows are divided, which share the weights that they load. stages: how many blocks
    of a sum are under way at a time, of which one is being multiplied and the others are being loaded.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    groups: int = 1
    stages: int = 3

    def padded_depth(self, width: int) -> int:
        return -(-width // self.depth) * self.depth

    def padded_columns(self, width: int) -> int:
        return -(-width // self.columns) * self.columns

    def __str__(self) -> str:
        """Names all that decides the bits: one product of 64 rows may add in another order than two of 32."""
        groups = f"g{self.groups}" if self.groups > 1 else ""
        return f"{self.rows}x{self.columns}x{self.depth}w{self.warps}{groups}"


def layer_tile(columns: int, precision: Precision) -> Tile:
    """Returns the tile of a layer with so many columns: hidden units times the parts of each.

    Small layers need many programs. In large ones each loaded value should serve many products: what an fp32 thread
    loads from shared memory takes as long as its multiply-adds if it has 4 x 4 sums, and less with 8 x 4; on tensor
    cores, 32 rows would load the weights from the L2 cache too often. There, a product of 64 rows would become
    asynchronous (wgmma) on compute capability 9.0, which Triton 3.6 and its ptxas get wrong: they reuse the registers
    of an operand that is still read (triton#9433, triton#11781). So these tiles consist of two products of 32 rows. The
    limits come from such arithmetic and from compiler reports, not from measurements. They can be changed freely, but
    then a model has other numerics.
    """
    if columns < 1024:
        small = {"fp32": Tile(16, 32, 32, 2), "tf32": Tile(16, 64, 32, 4), "bf16": Tile(16, 64, 64, 4)}[precision]
        return small if columns >= 128 else replace(small, columns=16, warps=4)
    return Tile(64, 64, 32, 4) if precision == "fp32" else Tile(64, 128, 32, 4, groups=2)


def dense_tile(units: int, width: int, precision: Precision) -> Tile:
    """Returns the tile of a dense layer with so many units, for rows of so many values."""
    tile = layer_tile(units, precision)
    if units >= 128:
        return replace(tile, rows=tile.rows // tile.groups, groups=1)
    return replace(tile, depth=128) if width >= 256 else tile  # one program has all units: fewer, deeper blocks
