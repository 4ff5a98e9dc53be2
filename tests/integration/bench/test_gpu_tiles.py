"""`make bench-gpu-tiles`, as far as it can be tested without a device."""

from __future__ import annotations

import sys
from typing import ClassVar

import pytest
import torch
from cellkeeper_service.engine.cuda.buffers import Scratch, StepBuffers
from cellkeeper_service.engine.cuda.cells import KernelCells
from cellkeeper_service.engine.cuda.tiles import Tile
from cellkeeper_service.engine.precision import PRECISIONS, Precision

from bench import gpu_tiles
from tests.unit.cuda.double import HostDevice

SMALL, LARGE = Tile(16, 32, 32, 2), Tile(64, 64, 32, 4)
MODELS = [(model, precision) for model in gpu_tiles.MODELS for precision in PRECISIONS]


@pytest.mark.parametrize(("model", "precision"), MODELS)
def test_the_server_s_tile_is_first_and_no_tile_is_there_twice(model: str, precision: Precision) -> None:
    tiles = gpu_tiles.tiles_of(model, precision)
    assert tiles[0] == gpu_tiles.current(model, precision)
    assert len({*tiles}) == len(tiles) > 3


@pytest.mark.parametrize(("model", "precision"), MODELS)
def test_no_tile_would_be_an_asynchronous_product(model: str, precision: Precision) -> None:
    """Triton makes those of 64 rows and 4 warps on tensor cores."""
    for tile in gpu_tiles.tiles_of(model, precision):
        assert precision == "fp32" or tile.rows // tile.groups < 64


def test_a_tile_that_fails_is_named_and_the_fastest_is_bold() -> None:
    rows: dict[Tile, list[float] | str] = {LARGE: [50.0, 150.0], SMALL: [40.0, 190.0], Tile(64, 32, 32, 4): "no room"}
    assert list(gpu_tiles.lines("2x512", "fp32", (64, 1024), rows)) == [
        "| 2x512 | fp32 | 64x64x32w4, 3 stages (the server's) | B = 64: 50.0, B = 1024: **150.0** |",
        "| 2x512 | fp32 | 16x32x32w2, 3 stages | B = 64: **40.0**, B = 1024: 190.0 |",
        "| 2x512 | fp32 | 64x32x32w4, 3 stages | no room |",
    ]


@pytest.mark.parametrize(("broken", "status"), [(SMALL, False), (LARGE, True)])
def test_it_fails_only_if_the_server_s_own_tile_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: Tile, status: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_tiles"])
    monkeypatch.setattr(gpu_tiles, "cuda_devices", lambda: 1)
    monkeypatch.setattr(gpu_tiles, "CudaDevice", lambda _: HostDevice())
    monkeypatch.setattr(gpu_tiles, "MODELS", {"2x512": gpu_tiles.MODELS["2x512"]})
    monkeypatch.setattr(gpu_tiles, "PRECISIONS", ("fp32",))
    monkeypatch.setattr(gpu_tiles, "tiles_of", lambda *_: [LARGE, SMALL])
    monkeypatch.setattr(gpu_tiles, "timed", lambda *_: [1.0, 2.0])
    monkeypatch.setattr(gpu_tiles, "apart", lambda _, *one: {"error": "no room"} if one[2] == broken else {})
    with pytest.raises(SystemExit) as ended:
        gpu_tiles.main()
    assert ended.value.code is status
    assert f"| {broken}, 3 stages" in next(line for line in capsys.readouterr().out.splitlines() if "no room" in line)


class NotingCells(KernelCells):
    """Notes what was launched: the tiles, and the arena after it."""

    noted: ClassVar[list[tuple[str, torch.Tensor]]] = []

    def launch(self, arena: torch.Tensor, buffers: StepBuffers, scratch: Scratch) -> None:
        super().launch(arena, buffers, scratch)
        self.noted.append((self.numerics, arena))


@pytest.mark.parametrize("tile", [SMALL, Tile(64, 128, 32, 4, groups=2)])
def test_what_is_timed_is_a_step_with_that_tile(monkeypatch: pytest.MonkeyPatch, tile: Tile) -> None:
    monkeypatch.setattr(gpu_tiles, "MODELS", {"1x8": (1, 8, (3,))})
    monkeypatch.setattr(gpu_tiles, "KernelCells", NotingCells)
    with gpu_tiles.graphs("1x8", "fp32", tile, HostDevice(), (3,)) as launches:
        launches[0]()
    numerics, arena = NotingCells.noted[-1]
    assert str(tile) in numerics
    assert arena.abs().min() > 0  # it was zeros


def test_nothing_is_measured_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_tiles"])
    monkeypatch.setattr(gpu_tiles, "cuda_devices", lambda: 0)
    with pytest.raises(SystemExit, match="bench-gpu-tiles: torch finds no CUDA device on this machine"):
        gpu_tiles.main()
