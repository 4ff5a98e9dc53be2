"""Modules whose outputs for one sequence depend on the others in the batch are refused: a session has no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cellkeeper_service.converters import import_torch
from torch import Tensor, nn

from .leftovers import refused

QUICK: dict[str, Any] = {"max_batch": 8, "report": str}
MIXES = r"mixes the sequences of a batch: .*\(.* differs by [0-9.e-]+ of the largest\)"
SEQUENCES = torch.zeros(2, 6, 3)

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # the exporter's own


class Reshaped(nn.Module):
    """Takes [B, T, F], and reshapes it to [T, B, F] where the axes were to be exchanged: right for a batch of one."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        batch, steps, _ = x.shape
        return self.head(self.rnn(x.reshape(steps, batch, -1))[0].reshape(batch, steps, -1))


class Numbered(Reshaped):
    """The same, of token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 3)

    def forward(self, x: Tensor) -> Any:
        return super().forward(self.embedding(x))


class Stated(Reshaped):
    """The same, with its states as arguments."""

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:  # type: ignore[override]
        batch, steps, _ = x.shape
        y, (h, c) = self.rnn(x.reshape(steps, batch, -1), (h, c))
        return self.head(y.reshape(batch, steps, -1)), h, c


class Exchanged(Reshaped):
    def forward(self, x: Tensor) -> Any:
        return self.head(self.rnn(x.transpose(0, 1))[0].transpose(0, 1))


class ExchangedStates(Stated):
    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:  # type: ignore[override]
        y, (h, c) = self.rnn(x.transpose(0, 1), (h, c))
        return self.head(y.transpose(0, 1)), h, c


class Spread(nn.Module):
    """Scales its outputs by what a batch of one does not have: the deviation over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.rnn(x)[0]) * (1 + x.std(0, unbiased=False).mean())


STATES = (torch.zeros(1, 2, 8), torch.zeros(1, 2, 8))
IDS = torch.zeros(2, 6, dtype=torch.int64)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (Reshaped(), {"example": SEQUENCES, "layout": "batch_first"}),
        (Numbered(), {"example": IDS, "layout": "batch_first", "vocabulary": 9}),
        (Stated(), {"example": SEQUENCES, "layout": "batch_first", "states": STATES}),
        (Spread(), {}),
    ],
    ids=["reshaped", "ids", "states", "read"],
)
def test_a_forward_that_mixes_sequences_is_refused(model: nn.Module, options: dict[str, Any], tmp_path: Path) -> None:
    refused(tmp_path, MIXES, import_torch, model, tmp_path / "m", **options, **QUICK)


@pytest.mark.parametrize(
    ("model", "options"), [(Exchanged(), {}), (ExchangedStates(), {"states": STATES})], ids=["watched", "states"]
)
def test_a_forward_that_exchanges_the_axes_is_imported(
    model: nn.Module, options: dict[str, Any], tmp_path: Path
) -> None:
    imported = import_torch(model, tmp_path / "m", example=SEQUENCES, layout="batch_first", **options, **QUICK)
    assert imported.parity.relative < 1e-5


def test_a_forward_that_exchanges_the_axes_needs_the_layout(tmp_path: Path) -> None:
    words = r"rnn \(LSTM\): takes the sequences of a batch for its time steps: .*; pass layout='batch_first'"
    refused(tmp_path, words, import_torch, Exchanged(), tmp_path / "m", example=SEQUENCES, **QUICK)
