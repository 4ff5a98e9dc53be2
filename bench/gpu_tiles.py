"""`make bench-gpu-tiles`: is another tile of a layer faster on this device than the one that the server takes?

The server's tiles come from arithmetic (engine/cuda/tiles.py), so a run of a minute decides. For each model, the
kernels of all tiles are compiled first, several at a time and each tile in a process of its own, so that one that fails
ends no other. Then a graph of one time step is timed for each tile and batch, launched back to back. The table has a
line for each tile, with its microseconds, and the fastest of each batch in bold.

A tile is part of what decides the bits: whoever changes one in the server changes its numerics.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from cellkeeper_service.engine.cuda import weights
from cellkeeper_service.engine.cuda.cells import KernelCells, StepBuffers
from cellkeeper_service.engine.cuda.device import CudaDevice, cuda_devices
from cellkeeper_service.engine.cuda.tiles import Tile, layer_tile
from cellkeeper_service.engine.precision import PRECISIONS, Precision
from cellkeeper_service.model.config import RecurrentConfig

from testing.bundles import bundle_config, random_tensors

from .gpu import FEATURES, on_the_device
from .gpu_exactness import CONTEXT, apart

MODELS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "2x128": (2, 128, (64, 1024)),
    "2x512": (2, 512, (64, 1024)),
    "1x1024": (1, 1024, (64, 512)),
}
"""Layers, hidden units, batches."""

SMALL: dict[Precision, tuple[Tile, ...]] = {
    "fp32": (Tile(16, 32, 32, 2), Tile(16, 32, 32, 4), Tile(16, 64, 32, 4), Tile(32, 32, 32, 2)),
    "tf32": (Tile(16, 64, 32, 4), Tile(16, 32, 32, 4), Tile(16, 64, 64, 4)),
    "bf16": (Tile(16, 64, 64, 4), Tile(16, 32, 64, 4), Tile(32, 64, 64, 4)),
}
LARGE: dict[Precision, tuple[Tile, ...]] = {
    "fp32": (Tile(64, 64, 32, 4), Tile(32, 64, 32, 4), Tile(64, 32, 32, 4), Tile(64, 128, 32, 8)),
    "tf32": (Tile(64, 128, 32, 4, groups=2), Tile(64, 64, 32, 4, groups=2), Tile(32, 128, 32, 4)),
    "bf16": (Tile(64, 128, 32, 4, groups=2), Tile(64, 64, 32, 4, groups=2), Tile(32, 128, 64, 4)),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_tiles", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda:0", help="cuda:N")
    parser.add_argument("--jobs", type=int, default=10, help="tiles that are compiled at the same time")
    options = parser.parse_args()
    if not cuda_devices():
        sys.exit("bench-gpu-tiles: torch finds no CUDA device on this machine, so nothing was measured")
    CONTEXT.set_forkserver_preload(["cellkeeper_service.engine.cuda.engine"])
    print("| model | precision | tile | us at each batch |\n|---|---|---|---|", flush=True)
    failed = False
    for model, (_, _, batches) in MODELS.items():
        errors = compiled(model, options.device, options.jobs)
        device = CudaDevice(options.device)
        for precision in PRECISIONS:
            rows = {
                tile: errors.get((precision, tile)) or timed(model, precision, tile, device)
                for tile in tiles_of(model, precision)
            }
            failed |= isinstance(rows[current(model, precision)], str)
            print("\n".join(lines(model, precision, batches, rows)), flush=True)
    sys.exit(failed)


def current(model: str, precision: Precision) -> Tile:
    """Returns the tile that the server takes."""
    return layer_tile(4 * MODELS[model][1], precision)


def tiles_of(model: str, precision: Precision) -> list[Tile]:
    """Returns the current tile, then others like it."""
    first = current(model, precision)
    alike = next(tiles[precision] for tiles in (SMALL, LARGE) if first in tiles[precision])
    return [first, *(tile for tile in alike if tile != first), replace(first, stages=first.stages + 1)]


def compiled(model: str, device: str, jobs: int) -> dict[tuple[Precision, Tile], str]:
    """Compiles the kernels of a model with each tile. Returns why, for those that do not work."""
    chosen = [(precision, tile) for precision in PRECISIONS for tile in tiles_of(model, precision)]
    with ThreadPoolExecutor(jobs) as threads:
        results = list(threads.map(lambda one: apart(compile_tile, model, *one, device), chosen))
    return {one: result["error"] for one, result in zip(chosen, results, strict=True) if "error" in result}


def compile_tile(model: str, precision: Precision, tile: Tile, device: str) -> dict[str, Any]:
    """Compiles the kernels of a model with this tile, which leaves them in Triton's cache. Returns {}, or the error."""
    try:
        own = CudaDevice(device)
        with graphs(model, precision, tile, own, MODELS[model][2][:1]):
            return {}
    except Exception as error:  # noqa: BLE001  # after any error the others are tried
        return {"error": " ".join(str(error).split())[:200]}


def timed(model: str, precision: Precision, tile: Tile, device: CudaDevice) -> list[float]:
    """Returns the microseconds of a call of one time step at each of the model's batches."""
    with graphs(model, precision, tile, device, MODELS[model][2]) as launches:
        return [on_the_device(launch) for launch in launches]


@contextmanager
def graphs(
    model: str, precision: Precision, tile: Tile, device: CudaDevice, batches: Sequence[int]
) -> Iterator[list[Callable[[], object]]]:
    """Gives a graph of one time step at each batch. The device is entered."""
    layers, hidden, _ = MODELS[model]
    config = bundle_config(input_size=FEATURES, hidden_size=hidden, num_layers=layers)
    with device.entered(), patch.object(weights, "layer_tile", lambda *_: tile):
        cells = KernelCells(config, random_tensors(config), device.torch_device, precision)
        launches = [launch_of(cells, config, device.torch_device, batch) for batch in batches]
        device.compile(launches[0])
        yield [device.capture(launch) for launch in launches]


def launch_of(cells: KernelCells, config: RecurrentConfig, place: torch.device, batch: int) -> Callable[[], None]:
    rows = torch.arange(batch, dtype=torch.int32, device=place)
    outputs = {
        "prediction": torch.zeros(1, batch, config.output_size, device=place),
        "hidden": torch.zeros(1, batch, config.recurrent_size, device=place),
    }
    finite = torch.zeros(batch, dtype=torch.uint8, device=place)
    buffers = StepBuffers(torch.randn(1, batch, FEATURES, device=place), rows, rows, outputs, finite)
    arena, scratch = torch.zeros(batch, cells.row_width, device=place), cells.scratch(1, batch)
    return lambda: cells.launch(arena, buffers, scratch)


def lines(
    model: str, precision: Precision, batches: Sequence[int], rows: dict[Tile, list[float] | str]
) -> Iterator[str]:
    """Yields a row of the table for each tile."""
    measured = [took for took in rows.values() if not isinstance(took, str)]
    best = [min(column) for column in zip(*measured, strict=True)]
    server = current(model, precision)
    for tile, took in rows.items():
        figures = took
        if not isinstance(took, str):
            shown = [f"**{us:.1f}**" if us == least else f"{us:.1f}" for us, least in zip(took, best, strict=True)]
            figures = ", ".join(f"B = {batch}: {us}" for batch, us in zip(batches, shown, strict=True))
        note = " (the server's)" if tile == server else ""
        yield f"| {model} | {precision} | {tile}, {tile.stages} stages{note} | {figures} |"


if __name__ == "__main__":
    main()
