"""A forward that treats some inputs in a special way is not mistaken for its layers one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cellkeeper_service.converters import Missing, Normalization, import_torch
from torch import Tensor, nn

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def before(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.rnn(self.before(x))[0])
        return y


class Sentinel(Plain):
    def before(self, x: Tensor) -> Tensor:
        return torch.where(x == -999.0, torch.zeros_like(x), x)


class SentinelTensor(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("absent", torch.tensor([-77.0, -88.0, -99.0]))

    def before(self, x: Tensor) -> Tensor:
        return torch.where(x.eq(self.get_buffer("absent")), torch.full_like(x, 0.5), x)


class FilledForward(Plain):
    """Zeros stand for missing values, which keep the last value."""

    def before(self, x: Tensor) -> Tensor:
        steps = [x[:, 0]]
        for step in x.unbind(1)[1:]:
            steps.append(torch.where(step == 0, steps[-1], step))
        return torch.stack(steps, 1)


class Masked(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (x != -1).any(-1, keepdim=True)


class Branching(Plain):
    """Compares with the second number only if the first occurs."""

    def before(self, x: Tensor) -> Tensor:
        if (x == -40.0).any() and (x == 85.0).any():
            return x.clamp(max=84.0)
        return x


@pytest.mark.parametrize(
    ("module", "number"),
    [
        (Sentinel, "-999"),
        (SentinelTensor, "-77, -88, -99"),
        (FilledForward, "0"),
        (Masked, "-1"),
        (Branching, "-40, 85"),
    ],
)
def test_values_that_a_forward_compares_with_are_tried(module: type[Plain], number: str, tmp_path: Path) -> None:
    words = f"for inputs with zeros and values near {number}, 200 time steps"
    refused(tmp_path, words, import_torch, module(), tmp_path / "m", **QUICK)


class Padded(nn.Module):
    def __init__(self, padding: int) -> None:
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(50_000, 4), nn.GRU(4, 8, batch_first=True)
        self._padding = padding

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rnn(self.embedding(x))[0] * (x != self._padding).unsqueeze(-1)
        return y


@pytest.mark.parametrize("padding", [0, 23_456, 49_999])
def test_ids_that_a_forward_compares_with_are_tried(padding: int, tmp_path: Path) -> None:
    refused(tmp_path, "returns other values than its layers", import_torch, Padded(padding), tmp_path / "m", **QUICK)


class Zeroing(Plain):
    def before(self, x: Tensor) -> Tensor:
        return torch.nan_to_num(x, nan=0.0)


def test_a_forward_that_fills_missing_values_itself_agrees_with_the_policy(tmp_path: Path) -> None:
    numbers = Normalization((5.0, 6.0, 7.0), (2.0, 2.0, 2.0))
    words = "computes with missing values \\(NaN\\) itself, and differs from the policy hold"
    refused(tmp_path, words, import_torch, Zeroing(), tmp_path / "a", missing=Missing("hold"), **QUICK)
    words = words.replace("hold", "constant")
    options: dict[str, Any] = {"missing": Missing("constant", 0.0), "normalization": numbers, **QUICK}
    refused(tmp_path, words, import_torch, Zeroing(), tmp_path / "b", **options)
    assert import_torch(Zeroing(), tmp_path / "c", missing=Missing("constant", 0.0), **QUICK).parity.relative < 1e-5
    assert import_torch(Zeroing(), tmp_path / "d", **QUICK).parity.relative < 1e-5  # NaN never reaches the model
    assert import_torch(Plain(), tmp_path / "e", missing=Missing("hold"), **QUICK).parity.relative < 1e-5


class Late(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return torch.where((torch.arange(x.shape[1]) > 5_000)[None, :, None], y * 2, y)


class Item(Plain):
    def before(self, x: Tensor) -> Tensor:
        return x * 0 if x[0, 0, 0].item() == -5.0 else x


class Near(Plain):
    def before(self, x: Tensor) -> Tensor:
        return torch.where((x + 999.0).abs() < 1e-3, torch.zeros_like(x), x)


@pytest.mark.parametrize(("module", "operator"), [(Late, "where"), (Item, "_local_scalar_dense"), (Near, "where")])
def test_a_choice_between_values_that_no_comparison_reaches_is_said(
    module: type[Plain], operator: str, tmp_path: Path
) -> None:
    lines: list[str] = []
    import_torch(module(), tmp_path / "m", max_batch=8, report=lines.append)
    assert lines[0].startswith(f"{module.__name__}: its forward chooses between values (")
    assert operator in lines[0]
    lines.clear()
    import_torch(Plain(), tmp_path / "plain", max_batch=8, report=lines.append)
    assert len(lines) == 1


def test_with_an_example_such_a_forward_is_traced(tmp_path: Path) -> None:
    imported = import_torch(Near(), tmp_path / "m", example=torch.zeros(2, 5, 3), **QUICK)
    assert imported.parity.source.endswith("(traced)")
