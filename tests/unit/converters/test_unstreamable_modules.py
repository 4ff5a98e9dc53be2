"""PyTorch and Keras modules that no stream can serve are refused when traced, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cellkeeper_service.converters import import_keras, import_torch
from torch import Tensor, nn

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
AHEAD, BATCH = "it looks ahead", "rows of a batch depend on each other"

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # the exporter's and Keras' own


class Model(nn.Module):
    """An LSTM [B, T, 8], `change` applied to its outputs [B, T, 16], and a head."""

    def __init__(self, change: Callable[[Tensor], Tensor], *more: nn.Module) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 16, batch_first=True)
        self.more = nn.ModuleList(more)
        self.head = nn.Linear(16, 2)
        self._change = change

    def forward(self, x: Tensor) -> Any:
        y, _ = self.rnn(x)
        return self.head(self._change(y) + 0.5 * y)


def over_time(layer: nn.Module) -> Model:
    """Returns a model that applies `layer` to [B, 16, T]."""
    return Model(lambda y: layer(y.transpose(1, 2)).transpose(1, 2), layer)


def attending() -> Model:
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    return Model(lambda y: attention(y, y, y, need_weights=False)[0], attention)


TORCH: dict[str, tuple[Callable[[], Model], str]] = {
    "reverse": (lambda: Model(lambda y: y.flip(1)), AHEAD),
    "mean over time": (lambda: Model(lambda y: y.mean(1, keepdim=True)), AHEAD),
    "softmax over time": (lambda: Model(lambda y: torch.softmax(y, 1)), AHEAD),
    "the next time step": (lambda: Model(lambda y: torch.roll(y, -1, 1)), AHEAD),
    "attention": (attending, rf"holds more.0 \(MultiheadAttention\), which sees other time steps; .*{AHEAD}"),
    "a centred window": (lambda: over_time(nn.Conv1d(16, 16, 3, padding=1)), AHEAD),
    "normalised over time": (lambda: over_time(nn.InstanceNorm1d(16)), "11 sequences of 1 time steps"),
    "a running sum": (
        lambda: Model(lambda y: y.cumsum(1)),
        "something that is not a state carries over between time steps",
    ),
    "a causal window": (
        lambda: Model(lambda y: F.pad(y, (0, 0, 1, 0))[:, :-1] + y),
        "something that is not a state carries over between time steps",
    ),
    "mean over the batch": (lambda: Model(lambda y: y - y.mean(0, keepdim=True)), BATCH),
    "clipped by the batch's norm": (lambda: Model(lambda y: y / (1e-3 + y.norm())), BATCH),
    "normalised over the batch": (
        lambda: Model(lambda y: F.batch_norm(y.transpose(1, 2), None, None, training=True).transpose(1, 2)),
        BATCH,
    ),
    "random noise": (lambda: Model(lambda y: y + torch.randn_like(y)), "draws random numbers"),
    "dropout in training": (
        lambda: Model(lambda y: F.dropout(y, 0.5, training=True)),
        "drops values at random in training mode",
    ),
}


@pytest.mark.fire
@pytest.mark.parametrize("name", TORCH)
def test_modules(name: str, tmp_path: Path) -> None:
    make, words = TORCH[name]
    torch.manual_seed(3)
    refused(tmp_path, words, import_torch, make(), tmp_path / "m", example=torch.zeros(2, 6, 8), **QUICK)


def keras_models() -> dict[str, tuple[Callable[[Any], Any], str]]:
    from keras import layers as L
    from keras import ops

    return {
        "reverse": (lambda y: ops.flip(y, axis=1), AHEAD),
        "mean over time": (lambda y: ops.mean(y, axis=1, keepdims=True) + y, AHEAD),
        "normalised over time": (L.GroupNormalization(1), AHEAD),
        "a running sum": (
            lambda y: ops.cumsum(y, axis=1),
            "something that is not a state carries over between time steps",
        ),
        "mean over the batch": (lambda y: y - ops.mean(y, axis=0, keepdims=True), BATCH),
    }


@pytest.mark.fire
def test_keras_models(keras: Any, tmp_path: Path) -> None:
    from keras import Input, Model
    from keras import layers as L

    for number, (change, words) in enumerate(keras_models().values()):
        x = Input((None, 4))
        y = L.LSTM(16, return_sequences=True)(x)
        model = Model(x, L.Dense(2)(L.Add()([change(y), y])))
        model.save(tmp_path / f"{number}.keras")
        refused(tmp_path, words, import_keras, tmp_path / f"{number}.keras", tmp_path / "m", trace=True, **QUICK)
