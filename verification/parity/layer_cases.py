"""Layers between and after recurrent ones, branches, and cells of every kind: PyTorch's as lists, Keras' as files."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from cellkeeper_service.converters import Imported, import_torch
from safetensors.torch import save_file
from torch import nn

from .case import Case, Importer
from .keras_models import filled, functional, saved, sequential

TORCH_ACTIVATIONS = (
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.SELU,
    nn.ReLU6,
    nn.Hardswish,
    nn.LogSigmoid,
    nn.Softsign,
)
KERAS_ACTIVATIONS = (
    ("gelu", "silu", "mish", "selu"),
    ("leaky_relu", "hard_silu", "log_sigmoid", "relu6", "hard_tanh"),
)


def torch_list(*layers: nn.Module) -> Importer:
    def run(folder: Path, max_batch: int) -> Imported:
        return import_torch(list(layers), folder, max_batch=max_batch, report=str)

    return run


def torch_words(folder: Path, max_batch: int) -> Imported:
    """Imports weights from a file and their layers from a description."""
    layers = {"gru": nn.GRU(4, 24), "norm": nn.LayerNorm(24, eps=1e-6), "act": nn.PReLU(), "head": nn.Linear(24, 3)}
    path = folder.with_suffix(".safetensors")
    save_file(nn.ModuleDict(layers).state_dict(), path)
    words = "gru=gru layer_norm=norm:1e-6 prelu=act dense=head leaky_relu:0.2"
    return import_torch(path, folder, layers=words, max_batch=max_batch, report=str)


def torch_layer_cases() -> list[Case]:
    """Returns the cases; their weights come from torch's seed."""
    norms = (nn.LayerNorm(3), nn.LSTM(3, 24), nn.LayerNorm(24), nn.GRU(24, 13), nn.LayerNorm(13, bias=False))
    plain = nn.LayerNorm(20, elementwise_affine=False)
    cases = [
        Case("torch", f"LSTM 1x24, Linear, {kind.__name__}", torch_list(nn.LSTM(3, 24), nn.Linear(24, 7), kind()))
        for kind in TORCH_ACTIVATIONS
    ]
    return [
        *cases,
        Case("torch", "GRU 1x24, GELU (tanh), Linear", torch_list(nn.GRU(3, 24), nn.GELU("tanh"), nn.Linear(24, 2))),
        Case("torch", "GRU 1x24, Linear, LogSoftmax", torch_list(nn.GRU(3, 24), nn.Linear(24, 5), nn.LogSoftmax(-1))),
        Case("torch", "LSTM 1x24, LeakyReLU, Linear, PReLU", torch_list(nn.LSTM(3, 24), nn.LeakyReLU(0.2), nn.PReLU())),
        Case("torch", "LayerNorm, LSTM 24, LayerNorm, GRU 13, LayerNorm, Linear", torch_list(*norms, nn.Linear(13, 2))),
        Case("torch", "LSTM 1x20, LayerNorm without weights, Linear", torch_list(nn.LSTM(3, 20), plain)),
        Case("torch", "safetensors file, GRU 1x24, LayerNorm, PReLU, Linear, LeakyReLU", torch_words),
    ]


def branches() -> Any:
    """Returns two recurrent layers side by side, joined in every possible way, and a path around a third one."""
    from keras import Input, Model
    from keras import layers as L

    x = Input((None, 3))
    a, b = L.LSTM(8, return_sequences=True)(x), L.GRU(8, return_sequences=True)(x)
    joined = L.Concatenate()(
        [
            L.Add()([a, b]),
            L.Subtract()([a, b]),
            L.Multiply()([a, b]),
            L.Average()([a, b]),
            L.Maximum()([a, b]),
            L.Minimum()([a, b]),
            x,
        ]
    )
    narrow = L.Dense(8)(joined)
    around = L.Add()([narrow, L.LSTM(8, return_sequences=True)(narrow)])
    return filled(Model(x, L.Dense(2)(L.LSTM(6)(L.Add()([around, narrow])))))


def gated() -> Any:
    """Returns a gate of the input over a recurrent layer, layer normalisation, and a path around both."""
    from keras import Input, Model
    from keras import layers as L

    x = Input((None, 4))
    wide = L.Dense(12)(x)
    gate = L.Dense(12, activation="sigmoid")(x)
    value = L.Multiply()([gate, L.GRU(12, return_sequences=True)(L.LayerNormalization()(wide))])
    return filled(Model(x, L.Dense(1)(L.LayerNormalization(epsilon=1e-5)(value + wide))))


@cache
def keras_layer_cases() -> list[Case]:
    """Returns the cases. Needs Keras 3 with a backend."""
    from keras import Input
    from keras import layers as L

    def stack(*layers: Any) -> Importer:
        return saved(sequential(Input((None, 3)), *layers))

    def heads(names: tuple[str, ...]) -> list[Any]:
        return [L.Dense(8, activation=name) for name in names]

    cells_of_others = (
        L.LSTM(16, activation="gelu", return_sequences=True),
        L.GRU(12, activation="mish", return_sequences=True),
        L.SimpleRNN(8, activation="elu"),
        L.Dense(2),
    )
    cells = functional(
        Input((None, 3)),
        L.RNN(L.LSTMCell(9), return_sequences=True),
        L.RNN([L.GRUCell(8), L.LSTMCell(7)], return_sequences=True),
        L.RNN(L.SimpleRNNCell(6, activation="relu")),
        L.Dense(2),
    )
    normed = (
        L.LSTM(20, return_sequences=True),
        L.LayerNormalization(),
        L.PReLU(shared_axes=[1]),
        L.GRU(12),
        L.LayerNormalization(center=False),
        L.ReLU(max_value=6.0),
        L.Dense(2),
    )
    convolved = (
        L.Conv1D(12, 3, padding="causal", activation="relu"),
        L.Conv1D(9, 2, padding="causal", dilation_rate=4, use_bias=False),
        L.GRU(12),
        L.Dense(2),
    )
    convolutions = (
        Input((None, 3)),
        L.Conv1D(8, 4, padding="causal", activation="gelu"),
        L.Conv1D(2, 1, padding="causal"),
    )
    odd = (L.LSTM(10, activation="silu", return_sequences=True), L.GRU(9, activation="selu", reset_after=False))
    return [
        *(
            Case("keras", f"LSTM 16, Dense with {', '.join(names)} (.keras)", stack(L.LSTM(16), *heads(names)))
            for names in KERAS_ACTIVATIONS
        ),
        Case("keras", "LSTM 16 with gelu, GRU 12 with mish, SimpleRNN 8 with elu (.keras)", stack(*cells_of_others)),
        Case("keras", "LSTM 10 with silu, GRU 9 with selu, reset_after=False (.keras)", stack(*odd)),
        Case("keras", "LSTM 20, GRU 12, LayerNormalization, PReLU, ReLU 6 (.keras)", stack(*normed)),
        Case("keras", "causal Conv1D, dilated Conv1D, GRU 12, Dense (.keras)", stack(*convolved)),
        Case("keras", "causal Conv1D alone, Conv1D of one step (.h5)", saved(sequential(*convolutions), ".h5")),
        Case("keras", "RNN of one cell, of stacked cells, of a SimpleRNNCell (.keras)", saved(cells)),
        Case("keras", "RNN of one cell, of stacked cells, of a SimpleRNNCell (.h5)", saved(cells, ".h5")),
        Case("keras", "functional: LSTM and GRU side by side, every merge, residual (.keras)", saved(branches())),
        Case("keras", "functional: LSTM and GRU side by side, every merge, residual (.h5)", saved(branches(), ".h5")),
        Case("keras", "functional: gated GRU with LayerNormalization and a path around (.keras)", saved(gated())),
    ]
