"""An arena with more floats than an int32 can count: a row's offset is its number times the row width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.engine.cuda import cells
from cellkeeper_service.engine.cuda.cells import StepBuffers
from torch import Tensor

from testing.bundles import Array

from .chunks import DEVICE, Model

HOLD: dict[str, Any] = {"kind": "features", "missing": {"policy": "hold", "value": 0.25}}
STEPS = 2


def empty_arena(path: Path, rows: int, width: int) -> Tensor:
    """Returns an arena of zeros; without a device, in a sparse file, which takes no memory."""
    if DEVICE.type == "cuda":
        return torch.zeros(rows, width, device=DEVICE)
    return torch.from_file(str(path), shared=True, size=rows * width).view(rows, width)


def advance(model: Model, arena: Tensor, inputs: Array, read: int, write: int) -> tuple[bytes, bytes]:
    """Returns the bits of the hidden output and of the state after it."""
    hidden = torch.zeros(STEPS, 1, model.config.recurrent_size, device=DEVICE)
    buffers = StepBuffers(
        torch.from_numpy(inputs).to(DEVICE),
        torch.tensor([read], dtype=torch.int32, device=DEVICE),
        torch.tensor([write], dtype=torch.int32, device=DEVICE),
        {"hidden": hidden},
        torch.zeros(1, dtype=torch.uint8, device=DEVICE),
    )
    model.cells.launch(arena, buffers, model.cells.scratch(STEPS, 1))
    return hidden.cpu().numpy().tobytes(), arena[write].cpu().numpy().tobytes()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rows_beyond_two_to_the_31_floats_are_read_and_written(tmp_path: Path, cell: str) -> None:
    model = Model(cells, cell=cell, hidden_size=130, input=HOLD)
    width = model.cells.row_width
    state, inputs = model.arena(1)[0], model.inputs(STEPS, 1)
    inputs[:, 0, 1] = np.nan  # held, so read from the arena
    small, large = torch.zeros(2, width, device=DEVICE), empty_arena(tmp_path / "arena", 2**31 // width + 3, width)
    last = len(large) - 1
    small[0] = large[last] = torch.from_numpy(state)
    assert last * width > 2**31
    assert advance(model, large, inputs, last, last - 1) == advance(model, small, inputs, 0, 1)
    assert large[last].cpu().numpy().tobytes() == state.tobytes()
