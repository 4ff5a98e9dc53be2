"""PyTorch models of every kind that can be imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cellkeeper_service.converters import Imported, import_torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .case import Case, Importer
from .layer_cases import torch_layer_cases
from .trace_cases import trace_cases


class Forecaster(nn.Module):
    """A forecaster as people write it: the last time step of a sequence goes through a head."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 48, 2, batch_first=True, dropout=0.2)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.rnn(x)
        result: Tensor = self.head(self.dropout(output[:, -1]))
        return result


class Language(nn.Module):
    """Token ids in, logits out; the head shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 24)
        self.rnn = nn.GRU(24, 24)
        self.decoder = nn.Linear(24, 50)
        self.decoder.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        output, state = self.rnn(self.embedding(ids))
        return self.decoder(output), state


class Step(nn.Module):
    """(x, h, c) -> (y, h, c), one time step, with a path around the cell that no list of layers can express."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, c = self.cell(torch.relu(x), (h, c))
        return x + self.head(h), h, c


def modules(*layers: nn.Module, **options: Any) -> Importer:
    def run(folder: Path, max_batch: int) -> Imported:
        return import_torch(list(layers), folder, max_batch=max_batch, report=str, **options)

    return run


def own(model: nn.Module) -> Importer:
    def run(folder: Path, max_batch: int) -> Imported:
        return import_torch(model, folder, max_batch=max_batch, report=str)

    return run


def safetensors_file(folder: Path, max_batch: int) -> Imported:
    path = folder.with_suffix(".safetensors")
    model = Forecaster()
    save_file(model.state_dict(), path)
    return import_torch(path, folder, layers="lstm=rnn dense=head", max_batch=max_batch, report=str)


def torch_file(folder: Path, max_batch: int) -> Imported:
    path = folder.with_suffix(".pt")
    weights = Language().state_dict()
    del weights["decoder.weight"]
    torch.save({"model_state_dict": weights, "epoch": 3}, path)
    words = "embedding=embedding gru=rnn tied=decoder softmax"
    return import_torch(path, folder, layers=words, max_batch=max_batch, report=str)


def program(folder: Path, max_batch: int) -> Imported:
    batch = torch.export.Dim("batch")
    example = (torch.randn(2, 3), torch.zeros(2, 16), torch.zeros(2, 16))
    exported = torch.export.export(Step().eval(), example, dynamic_shapes=({0: batch}, {0: batch}, {0: batch}))
    return import_torch(exported, folder, states=("h", "c"), max_batch=max_batch, report=str)


def torch_cases() -> list[Case]:
    """Returns the cases; their weights come from torch's seed."""
    lstm_cells = (nn.LSTMCell(3, 24), nn.LSTMCell(24, 24), nn.Linear(24, 2))
    learned = (torch.rand(2, 24) - 0.5, torch.rand(2, 24) - 0.5)
    return [
        Case("torch", "nn.LSTM 1x64", own(nn.LSTM(3, 64))),
        Case(
            "torch",
            "nn.LSTM 2x128, batch_first, Linear",
            modules(nn.LSTM(8, 128, 2, batch_first=True), nn.Linear(128, 3)),
        ),
        Case("torch", "nn.LSTM 1x40, no bias", own(nn.LSTM(3, 40, bias=False))),
        Case("torch", "nn.LSTM 2x32, proj_size 8, Linear", modules(nn.LSTM(3, 32, 2, proj_size=8), nn.Linear(8, 2))),
        Case(
            "torch",
            "nn.GRU 2x96, Linear, ReLU, Linear",
            modules(nn.GRU(5, 96, 2), nn.Linear(96, 32), nn.ReLU(), nn.Linear(32, 1)),
        ),
        Case("torch", "nn.RNN tanh 2x64, Linear", modules(nn.RNN(3, 64, 2), nn.Linear(64, 2))),
        Case("torch", "nn.RNN relu 1x64", own(nn.RNN(3, 64, nonlinearity="relu"))),
        Case("torch", "2 LSTMCells of 24, initial state, Linear", modules(*lstm_cells, initial_state=learned)),
        Case("torch", "GRUCell of 32, Linear, Sigmoid", modules(nn.GRUCell(3, 32), nn.Linear(32, 1), nn.Sigmoid())),
        Case(
            "torch",
            "Embedding, LSTM 1x32, Linear, Softmax",
            modules(nn.Embedding(30, 16), nn.LSTM(16, 32), nn.Linear(32, 30), nn.Softmax(-1)),
        ),
        Case(
            "torch",
            "Linear, Tanh, LSTM 1x48, GRU 1x32, Linear",
            modules(nn.Linear(6, 20), nn.Tanh(), nn.LSTM(20, 48), nn.GRU(48, 32), nn.Linear(32, 2)),
        ),
        Case("torch", "a module with its own forward (LSTM 2x48)", own(Forecaster())),
        Case("torch", "a module with a tied embedding (GRU 1x24)", own(Language())),
        Case("torch", "safetensors file, LSTM 2x48, Linear", safetensors_file),
        Case("torch", "torch.save file, tied embedding, GRU, Softmax", torch_file),
        *torch_layer_cases(),
        Case("torch", "torch.export program, LSTMCell with a path around it", program, slow=True),
        *trace_cases(),
    ]
