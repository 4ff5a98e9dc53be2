"""Layers of torch that are changed: derived classes, pruned, scripted or transformed ones, and weights of NaN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cellkeeper_service.converters import import_torch
from torch import Tensor, nn
from torch.nn.utils import prune

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
SEQUENCES = torch.zeros(2, 6, 3)
OWN_LAYER = r"a layer with a forward of its own, whose state cannot be watched: expected forward\(x, state\)"

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # the exporter's own


class PaddedConv(nn.Conv1d):
    def forward(self, x: Tensor) -> Any:
        return torch.tanh(super().forward(F.pad(x, (2, 0))))


class CutConv(nn.Conv1d):
    def __init__(self, inputs: int, units: int, kernel: int) -> None:
        super().__init__(inputs, units, kernel, padding=kernel - 1)

    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[..., : -self.padding[0]]  # type: ignore[operator]


class Convolved(nn.Module):
    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv, self.rnn = conv, nn.GRU(4, 8, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize("conv", [PaddedConv(3, 4, 3), CutConv(3, 4, 3)], ids=["padded", "cut"])
def test_a_class_derived_from_a_convolution(conv: nn.Conv1d, tmp_path: Path) -> None:
    imported = import_torch(Convolved(conv), tmp_path / "m", example=SEQUENCES, **QUICK)
    assert imported.parity.relative < 1e-5
    assert [state.name for state in imported.bundle.spec.states] == ["conv_past", "rnn_h"]


class Bounded(nn.LSTM):
    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        y, states = super().forward(x, hx)
        return torch.tanh(y), states


class OutputOnly(nn.LSTM):
    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        return super().forward(x, hx)[0], None


class WithoutState(nn.LSTM):
    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        return super().forward(x)


class Around(nn.Module):
    def __init__(self, rnn: nn.LSTM) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> Any:
        return 2 * self.rnn(x)[0]


def test_a_class_derived_from_a_recurrent_layer(tmp_path: Path) -> None:
    imported = import_torch(Around(Bounded(3, 8, batch_first=True)), tmp_path / "m", example=SEQUENCES, **QUICK)
    assert imported.parity.relative < 1e-5


@pytest.mark.parametrize("kind", [OutputOnly, WithoutState])
def test_a_derived_layer_whose_state_cannot_be_watched_is_refused(kind: type[nn.LSTM], tmp_path: Path) -> None:
    model = Around(kind(3, 8, batch_first=True))
    words = rf"rnn \({kind.__name__}\): {OWN_LAYER}"
    refused(tmp_path, words, import_torch, model, tmp_path / "m", example=SEQUENCES, **QUICK)


def test_pruned_layers_are_refused_with_what_to_call(tmp_path: Path) -> None:
    rnn, head = nn.LSTM(3, 8), nn.Linear(8, 2)
    prune.random_unstructured(head, "weight", 0.5)  # type: ignore[no-untyped-call]
    words = r"Linear: weight is pruned, .*torch.nn.utils.prune.remove\(module, 'weight'\)"
    refused(tmp_path, words, import_torch, [rnn, head], tmp_path / "m", **QUICK)
    weights = nn.Sequential(rnn, head).state_dict()
    words = r"tensor 1.weight_orig: a part of 1.weight, which is pruned; .*prune.remove"
    refused(tmp_path, words, import_torch, weights, tmp_path / "m", layers="lstm=0 dense=1", **QUICK)
    prune.remove(head, "weight")  # type: ignore[no-untyped-call]
    assert import_torch([rnn, head], tmp_path / "m", **QUICK).parity.relative < 1e-5


class First(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.rnn(x)[0]


class Second(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.rnn = torch.jit.script(First()), nn.LSTM(3, 8, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.rnn(self.first(x))[0]


def test_a_scripted_module_within_another_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "^first: a TorchScript module", import_torch, Second(), tmp_path / "m", example=SEQUENCES)


class Mapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.rnn = nn.Linear(3, 3), nn.LSTM(3, 8, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.rnn(torch.vmap(self.dense)(x))[0]


def test_a_layer_within_a_function_transform(tmp_path: Path) -> None:
    refused(tmp_path, "its first layer within a function transform", import_torch, Mapped(), tmp_path / "m", **QUICK)
    imported = import_torch(Mapped(), tmp_path / "m", example=SEQUENCES, **QUICK)
    assert imported.parity.relative < 1e-5


@pytest.mark.parametrize("options", [{}, {"example": SEQUENCES}], ids=["read", "traced"])
def test_weights_of_nan_are_named(options: dict[str, Any], tmp_path: Path) -> None:
    rnn = nn.LSTM(3, 8, batch_first=True)
    model = Around(rnn)
    nn.init.constant_(rnn.get_parameter("weight_hh_l0"), float("nan"))
    words = r"tensor (rnn\.)?weight_hh_l0: holds NaN or infinity, .*did its training diverge"
    refused(tmp_path, words, import_torch, model, tmp_path / "m", **options, **QUICK)
