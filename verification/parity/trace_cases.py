"""PyTorch modules that must be traced: their children alone do not show what their forward computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cellkeeper_service.converters import Imported, import_torch
from torch import Tensor, nn

from examples.recipes import keras_two_inputs
from examples.recipes.keyword_spotter import Spotter
from examples.recipes.min_gru import MinGru
from examples.recipes.residual_lstm import Residual
from examples.recipes.state_space import StateSpace

from .case import Case, Importer
from .keras_models import filled, saved


class LastStep(nn.Module):
    """Only the last time step goes through the head, as in forecasters. [B, T, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 12, batch_first=True)
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x * 2.0)
        result: Tensor = self.head(F.silu(y[:, -1]))
        return result


class Learned(nn.Module):
    """A learned initial state, two outputs for each time step, and a state after them. [T, B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, 1, 8))
        self.first = nn.GRU(3, 8)
        self.second = nn.RNN(8, 5)
        self.head = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, h = self.first(x, self.start.expand(1, x.shape[1], 8).contiguous())
        z, _ = self.second(torch.relu(y) + y)
        return self.head(z), y, h


class LoopOfCells(nn.Module):
    """A cell in a loop over time, and a path around it. [B, T, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], 8)
        steps = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            steps.append(x[:, t] + self.head(h))
        return torch.stack(steps, 1)


class Convention(nn.Module):
    """(x, (h, c)) -> (y, (h, c)), like PyTorch's own layers. [B, T, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, state = self.rnn(x, state)
        return self.head(self.norm(y)), state


class ConvLstm(nn.Module):
    """A ConvLSTM cell (x, (h, c)) -> (y, (h, c)) over frames [B, C, H, W], and the mean of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(1 + 3, 4 * 3, 3, padding=1)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = state
        i, f, o, g = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h.mean((2, 3))), (h, c)


class Words(nn.Module):
    """Token ids [T, B] -> logits, a path around the recurrent layer, and the embedding's weight in the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 12)
        self.rnn = nn.GRU(12, 12)
        self.norm = nn.LayerNorm(12)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        return F.linear(self.norm(x + self.rnn(x)[0]), self.embedding.weight)


def traced(model: nn.Module, example: Tensor, **options: Any) -> Importer:
    def run(folder: Path, max_batch: int) -> Imported:
        return import_torch(model, folder, example=example, max_batch=max_batch, report=str, **options)

    return run


def keras_branches() -> Any:
    """Returns layers that are not read, a nested model, and a branch around them."""
    from keras import Input, Model, Sequential
    from keras import layers as L

    x = Input((None, 3))
    a = L.LSTM(16, return_sequences=True)(x)
    b = L.RNN([L.LSTMCell(32, activation="celu"), L.GRUCell(16)], return_sequences=True)(x[..., :2])
    inner = Sequential([L.Dense(32, activation="squareplus"), L.Dense(16)])
    joined = L.Add()([L.TimeDistributed(inner)(b), a])
    return filled(Model(x, [L.Dense(2)(L.RMSNormalization()(joined)), L.Dense(1)(joined)]))


def keras_shared() -> Any:
    """Returns a layer used twice, each use with its own state, and only the last time step at the end."""
    from keras import Input, Model
    from keras import layers as L

    x = Input((None, 4))
    layer = L.GRU(4, return_sequences=True)
    return filled(Model(x, L.Dense(3)(L.SimpleRNN(5)(layer(layer(x))))))


def keras_frames(rank: int) -> Any:
    """Returns ConvLSTM1D or ConvLSTM2D over frames, and layers within each time step."""
    from keras import Input, Model
    from keras import layers as L

    kind = {1: L.ConvLSTM1D, 2: L.ConvLSTM2D}[rank]
    x = Input((None, *[5, 4][:rank], 2))
    frames = kind(3, 3, padding="same", return_sequences=True)(x)
    return filled(Model(x, L.Dense(2)(L.TimeDistributed(L.Flatten())(frames))))


def keras_tokens() -> Any:
    from keras import Input, Model
    from keras import layers as L

    ids = Input((None,), dtype="int32")
    return filled(Model(ids, L.Dense(9)(L.RMSNormalization()(L.LSTM(8)(L.Embedding(9, 5)(ids))))))


def keras_decoder() -> Any:
    """Returns a decoder at inference: its states are inputs and outputs, beside token ids and what it predicts."""
    from keras import Input, Model
    from keras import layers as L

    ids = Input((None,), dtype="int32")
    h, c, g = Input((8,), name="h"), Input((8,), name="c"), Input((6,), name="g")
    y, *lstm = L.LSTM(8, return_sequences=True, return_state=True)(L.Embedding(9, 5)(ids), initial_state=[h, c])
    y, gru = L.GRU(6, return_sequences=True, return_state=True)(y, initial_state=g)
    return filled(Model([ids, h, c, g], [L.Dense(9, activation="softmax")(y), *lstm, gru]))


def keras_trace_cases() -> list[Case]:
    """Returns the cases. Needs Keras on torch. A trace takes seconds."""
    cases = [
        ("layers that are not read, nested model, stacked cells, two outputs", keras_branches()),
        ("a layer used twice, the last time step", keras_shared()),
        ("token ids, RMSNormalization", keras_tokens()),
        ("ConvLSTM1D, frames [5, 2]", keras_frames(1)),
        ("ConvLSTM2D, frames [5, 4, 2]", keras_frames(2)),
    ]
    cases.append(("two inputs, LayerNormalization, a gate", keras_two_inputs.model()))
    cases.append(("a decoder, its states are inputs and outputs", keras_decoder()))
    return [Case("keras", f"traced: {title} (.keras)", saved(model, trace=True), slow=True) for title, model in cases]


def trace_cases() -> list[Case]:
    """Returns the cases; their weights come from torch's seed. A trace takes seconds."""
    zeros = (torch.zeros(1, 2, 8), torch.zeros(1, 2, 8))
    start = torch.full((2, 8), 0.3)
    complex_zeros = (torch.zeros(2, 12), torch.zeros(2, 12))
    sequences = torch.randn(2, 6, 3)
    frames = torch.zeros(2, 3, 5, 4)
    ids = torch.zeros(6, 2, dtype=torch.int64)
    cases = [
        ("LSTM, GRU, LayerNorm, gate, residual, concatenation", traced(Residual(), sequences)),
        ("the last time step through SiLU and a head", traced(LastStep(), sequences)),
        ("learned initial state, time first, two outputs", traced(Learned(), torch.randn(6, 2, 3))),
        ("LSTMCell in a loop, residual", traced(LoopOfCells(), sequences, layout="batch_first")),
        ("(x, (h, c)), LayerNorm", traced(Convention(), sequences, states=zeros)),
        ("minGRU step (x, h), own initial state", traced(MinGru(), torch.randn(2, 3), states=start)),
        ("state-space step (x, re, im)", traced(StateSpace(), torch.randn(2, 3), states=complex_zeros)),
        ("causal Conv1d, dilated, residual, GRU", traced(Spotter(), torch.randn(2, 6, 8))),
        ("token ids, residual GRU, tied weights", traced(Words(), ids, vocabulary=20)),
        (
            "ConvLSTM cell (x, (h, c)), frames [1, 5, 4]",
            traced(ConvLstm(), torch.randn(2, 1, 5, 4), layout="step", states=(frames, frames)),
        ),
    ]
    return [Case("torch", f"traced: {title}", run, slow=True) for title, run in cases]
