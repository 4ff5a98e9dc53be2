"""Modules as training leaves them: in other dtypes, wrapped, or with a state that they keep themselves."""

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

QUICK: dict[str, Any] = {"max_batch": 4, "report": str}
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # by torch.compile
EXAMPLE = torch.zeros(1, 6, 3)


class Plain(nn.Module):
    """Its children compute what its forward does."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.rnn(x)[0])
        return y


class Residual(Plain):
    """Can be traced only."""

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        z: Tensor = self.head(y + y.tanh())
        return z


class Keeping(Plain):
    """Keeps its state itself, as many training loops expect it."""

    hidden: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y, self.hidden = self.rnn(x, self.hidden)
        z: Tensor = self.head(y)
        return z


class Counting(Plain):
    """Counts its calls, so that a call by the import would show."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def same(folder: Path, model: nn.Module, take: nn.Module) -> None:
    """Imports `model`, and compares 50 time steps with `take`, the same module as float32 on the CPU."""
    import_torch(model, folder, **QUICK)
    x = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    with torch.no_grad():
        expected = take(torch.from_numpy(x)[None])[0].numpy()
    np.testing.assert_allclose(offline(folder, x)["prediction"], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_module_of_any_dtype_is_served_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    model = Plain().to(dtype)
    plain = Plain()
    plain.load_state_dict(model.state_dict())
    same(tmp_path / "m", model, plain)
    assert next(model.parameters()).dtype == dtype


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_wrappers_leave_the_names_of_states_as_they_are(wrap: Any, tmp_path: Path) -> None:
    plain = Plain().eval()
    same(tmp_path / "read", wrap(plain), plain)
    inside = Residual()
    inside.rnn = wrap(inside.rnn)
    traced = import_torch(wrap(inside), tmp_path / "traced", example=EXAMPLE, **QUICK)
    assert [state.name for state in traced.bundle.config.states] == ["rnn_h"]  # type: ignore[union-attr]
    listed = import_torch([wrap(nn.LSTM(3, 4)), nn.Linear(4, 1)], tmp_path / "listed", **QUICK)
    assert listed.parity.relative < 1e-5


def test_the_import_calls_copies_only(tmp_path: Path) -> None:
    model = Counting().train()
    import_torch(model, tmp_path / "m", **QUICK)
    assert (model.calls, model.training) == (0, True)


def test_a_state_that_a_module_keeps_itself_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "keeps a state.*such as self.hidden; take the state as", import_torch, Keeping(), tmp_path / "m")
    kept = Keeping()
    kept(torch.zeros(1, 2, 3))
    refused(tmp_path, "keeps nothing from the previous", import_torch, kept, tmp_path / "m", example=EXAMPLE)


def test_a_module_may_remember_what_it_computed(tmp_path: Path) -> None:
    class Watched(Plain):
        def forward(self, x: Tensor) -> Tensor:
            self.last, _ = self.rnn(x)
            y: Tensor = self.head(self.last)
            return y

    model = Watched()
    model(torch.zeros(1, 4, 3))
    assert model.last.grad_fn is not None
    same(tmp_path / "m", model, model)


def test_a_batch_that_len_fixes_is_refused_with_what_to_write(tmp_path: Path) -> None:
    class Learned(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Parameter(torch.randn(1, 1, 8))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.rnn(x, self.first.expand(-1, len(x), -1).contiguous())[0])
            return y

    refused(tmp_path, r"use x\.shape\[0\]", import_torch, Learned(), tmp_path / "m", example=EXAMPLE)


@pytest.mark.parametrize("operator", [torch.multiply, torch.greater])
def test_integers_meet_floats_under_every_name_of_an_operator(operator: Any, tmp_path: Path) -> None:
    """Keras on torch calls these for `x * 2`, and torch.onnx converts the integer only for torch.mul and the like."""

    class Meeting(Plain):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = super().forward(x)
            return torch.where(y > 0, operator(y, torch.tensor(2, dtype=torch.int32)).float(), y)

    assert import_torch(Meeting(), tmp_path / "m", example=EXAMPLE, **QUICK).parity.relative < 1e-5
