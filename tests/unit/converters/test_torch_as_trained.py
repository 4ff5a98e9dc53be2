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
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),  # by torch.compile, and here
    pytest.mark.filterwarnings("ignore:torch"),  # of quantization
]
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


class Classifier(Plain):
    """A softmax over the classes, axis 1 of what the last time step gives."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.softmax(self.head(self.rnn(x)[0][:, -1]))
        return y


def test_a_softmax_over_axis_1_is_traced(tmp_path: Path) -> None:
    words = r"softmax \(Softmax\): dim: got 1, expected -1: over the features; pass example=x"
    refused(tmp_path, words, import_torch, Classifier(), tmp_path / "m")


class Confused(nn.Module):
    """Takes [T, B, F] without saying so; its author means the last time step of [B, T, F]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.rnn(x)[0][:, -1])
        return y


def test_the_last_sequence_in_place_of_the_last_time_step(tmp_path: Path) -> None:
    words = r"returns \[32, 1\] for one sequence of 32 time steps and for two; .*set batch_first=True"
    refused(tmp_path, words, import_torch, Confused(), tmp_path / "m")


class Everything(Confused):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.rnn(x)[0])
        return y


def test_a_layout_that_is_not_that_of_the_layers(tmp_path: Path) -> None:
    words = r"rnn \(LSTM\): takes the sequences of a batch for its time steps: .*; pass layout='time_first'"
    options: dict[str, Any] = {"example": EXAMPLE, "layout": "batch_first"}
    refused(tmp_path, words, import_torch, Everything(), tmp_path / "m", **options)
    import_torch(Everything(), tmp_path / "m", example=EXAMPLE, layout="time_first", **QUICK)


class TakesState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, h: Tensor) -> Any:
        y, h = self.rnn(x, h)
        return self.head(y), h


def test_a_forward_that_takes_more_says_how(tmp_path: Path) -> None:
    words = "takes x, h, and its layers one input; .*example=x, states=h"
    refused(tmp_path, words, import_torch, TakesState(), tmp_path / "m")


def test_what_checkpoints_hold_besides_weights(tmp_path: Path) -> None:
    state = {f"model.{name}": value for name, value in Plain().state_dict().items()}
    options = {"layers": "gru=model.rnn dense=model.head", **QUICK}
    counted = {**state, "accuracy.total": torch.tensor(3)}
    words = r"tensor accuracy.total: got torch.int64 .*pass the state_dict without it"
    refused(tmp_path, words, import_torch, counted, tmp_path / "m", **options)
    weighted = {**state, "loss.weight": torch.ones(2)}
    words = r"tensor loss.weight: belongs to none of .*pass the state_dict without it"
    refused(tmp_path, words, import_torch, weighted, tmp_path / "m", **options)
    words = r"gru=rnn: no tensor's name begins with rnn\.; the names begin with model.head, model.rnn"
    refused(tmp_path, words, import_torch, state, tmp_path / "m", layers="gru=rnn dense=head")
    checkpoint: Any = {"state_dict": state, "epoch": 3}
    import_torch(checkpoint, tmp_path / "m", **options)


def test_the_weights_of_a_quantized_module(tmp_path: Path) -> None:
    quantize: Any = torch.ao.quantization.quantize_dynamic
    quantized = quantize(Plain(), {nn.Linear, nn.GRU}, dtype=torch.qint8)
    words = "quantized, expected float weights; pass the state_dict as it was before"
    refused(tmp_path, words, import_torch, quantized.state_dict(), tmp_path / "m", layers="gru=rnn dense=head")


def test_scripted_modules_and_files_of_programs(tmp_path: Path) -> None:
    words = "model: a TorchScript module, which holds code; pass its state_dict"
    scripted = torch.jit.script(Plain())
    refused(tmp_path, words, import_torch, scripted, tmp_path / "m", example=EXAMPLE)
    words = "expected only for a torch.export program .*pass torch.export.load"
    refused(tmp_path, words, import_torch, tmp_path / "m.pt2", tmp_path / "m", states=("h",))
