"""Modules whose forward does more than their layers are refused, with the inputs that show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cellkeeper_service.converters import import_torch
from torch import Tensor, nn

from verification.parity.torch_cases import Forecaster

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


class Squashed(Forecaster):
    """A module whose forward does more than its children."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(super().forward(x))


class Clamped(Forecaster):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(-10, 10))


class Compressed(Forecaster):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.where(x.abs() > 20, x.sign() * (1 + x.abs()).log(), x))


class WithoutOutliers(Forecaster):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.where(x.abs() > 100, torch.zeros_like(x), x))


class DeadZone(Forecaster):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.where(x.abs() < 1e-3, torch.zeros_like(x), x))


class Windowed(Forecaster):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, -40:])


class ScaledByLength(Forecaster):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.0 if x.shape[1] > 2 else 0.5)


class FilledUp(Forecaster):
    """A module that treats a sequence of zeros as a broken sensor."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 1.0 if bool((x == 0).all()) else x)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Clamped, r"changes its input before its first layer gets it, for inputs scaled by 10, 32 time steps, at step"),
        (Compressed, r"for inputs scaled by 10, 32 time steps"),
        (WithoutOutliers, "for inputs scaled by 1000, 32 time steps, at step 0"),
        (DeadZone, r"changes its input .* for inputs scaled by (0\.1|0\.01|1e-06), 32 time steps"),
        (Windowed, "hands 40 time steps to its first layer, for ordinary inputs, 200 time steps"),
        (ScaledByLength, "returns other values than its layers .* for ordinary inputs, 1 time steps, at step 0"),
        (FilledUp, "for inputs scaled by 0, 32 time steps, at step 0"),
    ],
)
def test_a_forward_that_is_more_for_some_inputs(kind: Any, words: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    refusal = refused(tmp_path, f"{kind.__name__}.forward: .*{words}", import_torch, kind(), tmp_path / "m", **QUICK)
    assert str(refusal).endswith("in the order in which they compute")  # its end is not cut off


class Alone(nn.Module):
    """A module with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 8)
        self.gain = nn.Parameter(torch.ones(8))


def test_a_forward_that_is_more_than_its_layers(tmp_path: Path) -> None:
    refused(
        tmp_path, "Squashed.forward: returns other values than its layers", import_torch, Squashed(), tmp_path / "m"
    )
    refused(tmp_path, "Alone: cannot be taken apart", import_torch, Alone(), tmp_path / "m")
