"""Lists of modules: each module runs as often as it is called, and no module's own forward is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.converters import import_torch
from cellkeeper_service.engine.load import offline
from torch import Tensor, nn

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
RELU, SQUARE = nn.ReLU(), nn.Linear(8, 8)


@pytest.mark.parametrize(
    "head",
    [nn.Sequential(nn.Linear(8, 8), RELU, nn.Linear(8, 2), RELU), nn.Sequential(SQUARE, nn.Tanh(), SQUARE)],
    ids=["an activation", "a layer with weights"],
)
def test_a_module_that_a_sequential_holds_twice_computes_twice(head: nn.Sequential, tmp_path: Path) -> None:
    torch.manual_seed(4)
    lstm = nn.LSTM(3, 8)
    import_torch([lstm, head], tmp_path / "m", **QUICK)
    inputs = np.random.default_rng(4).standard_normal((300, 3)).astype(np.float32)
    with torch.no_grad():
        expected = head(lstm(torch.from_numpy(inputs))[0]).numpy()
    assert np.abs(offline(tmp_path / "m", inputs)["prediction"] - expected).max() < 1e-5


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.as_tensor(self.inner(x))


class Doubled(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.as_tensor(self[0](x))


def hooked() -> nn.Sequential:
    inner = nn.Sequential(nn.Linear(8, 8))
    inner.register_forward_hook(lambda *given: 2 * given[-1])
    return inner


@pytest.mark.parametrize("block", [Around(), nn.Sequential(Around()), Doubled(nn.Linear(8, 8)), hooked()])
def test_a_block_with_a_forward_of_its_own_in_a_list_is_refused(block: nn.Module, tmp_path: Path) -> None:
    words = "has a forward or hooks of its own within a list, .*pass it with example=x"
    refused(tmp_path, words, import_torch, [nn.LSTM(3, 8), block], tmp_path / "m", **QUICK)
