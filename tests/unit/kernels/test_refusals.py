"""What a launch refuses: it would silently read a tensor of another shape or type as garbage."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from cellkeeper_service.engine.cuda import cells
from cellkeeper_service.engine.cuda.cells import StepBuffers
from torch import Tensor

from .chunks import DEVICE, Model

STEPS, BATCH = 2, 3


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(cells, cell="rnn_tanh")


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=DEVICE)


def buffers() -> StepBuffers:
    rows = torch.arange(BATCH, dtype=torch.int32, device=DEVICE)
    return StepBuffers(
        zeros(STEPS, BATCH, 3),
        rows,
        rows.clone(),
        {"prediction": zeros(STEPS, BATCH, 1)},
        zeros(BATCH, dtype=torch.uint8),
    )


def misaligned(*shape: int) -> Tensor:
    size = int(torch.tensor(shape).prod())
    return zeros(size + 1)[1:].view(shape)


CHANGES: dict[str, dict[str, Any]] = {
    "inputs: got torch.float64": {"inputs": zeros(STEPS, BATCH, 3, dtype=torch.float64)},
    "inputs: got torch.float32 [2, 3, 4]": {"inputs": zeros(STEPS, BATCH, 4)},
    "inputs: expected a contiguous tensor": {"inputs": misaligned(STEPS, BATCH, 3)},
    "read: got torch.int64": {"read": zeros(BATCH, dtype=torch.int64)},
    "write: got torch.int32 [4]": {"write": zeros(BATCH + 1, dtype=torch.int32)},
    "finite: got torch.bool": {"finite": zeros(BATCH, dtype=torch.bool)},
    "prediction: got torch.float32 [2, 3]": {"outputs": {"prediction": zeros(STEPS, BATCH)}},
    "outputs: got 'cell', expected some of prediction, hidden": {"outputs": {"cell": zeros(STEPS, BATCH, 1)}},
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_buffer_of_another_kind_is_refused(model: Model, message: str) -> None:
    changed = replace(buffers(), **CHANGES[message])
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        model.cells.launch(zeros(BATCH, model.cells.row_width), changed, model.cells.scratch(STEPS, BATCH))


def test_an_arena_of_another_model_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match=r"^arena: got torch\.float32 \[3, 9\], expected torch\.float32 \[3, 8\]"):
        model.cells.launch(zeros(BATCH, 9), buffers(), model.cells.scratch(STEPS, BATCH))


def test_scratch_of_another_bucket_is_refused(model: Model) -> None:
    with pytest.raises(ValueError, match=r"^inputs: got"):
        model.cells.launch(zeros(BATCH, 8), buffers(), model.cells.scratch(STEPS, BATCH + 1))


@pytest.mark.parametrize(("steps", "batch"), [(0, 1), (1, 0)])
def test_an_empty_bucket_is_refused(model: Model, steps: int, batch: int) -> None:
    with pytest.raises(ValueError, match=f"^scratch: got {steps} time steps and a batch of {batch}"):
        model.cells.scratch(steps, batch)
