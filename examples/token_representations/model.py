"""A word model of two LSTM layers with dropout between them, as in the tutorials on the Penn Treebank."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.write import write_bundle
from torch import Tensor, nn

from .words import VOCABULARY

LAYERS = 2
SIZE = 96  # of the embedding and of each layer
DROPOUT = 0.3

State = tuple[Tensor, Tensor]


class Seen(NamedTuple):
    """What the model returns.

    logits: [T, B, vocabulary]. layers: each layer's h at every time step, [T, B, SIZE]. states: the last ones.
    """

    logits: Tensor
    layers: list[Tensor]
    states: list[State]


class WordModel(nn.Module):
    """A model with one nn.LSTM for each layer.

    nn.LSTM(num_layers=2) would show the lower layer only after the last time step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, SIZE)
        self.layers = nn.ModuleList(nn.LSTM(SIZE, SIZE) for _ in range(LAYERS))
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(SIZE, VOCABULARY)

    def forward(self, ids: Tensor, states: Sequence[State] | None = None) -> Seen:
        """ids: [T, B]. states: of every layer, h and c [1, B, SIZE]; None: zeros."""
        flow, seen, after = self.dropout(self.embedding(ids)), [], []
        for i, layer in enumerate(self.layers):
            hidden, state = layer(flow, None if states is None else states[i])
            seen.append(hidden)
            after.append(state)
            flow = self.dropout(hidden)
        return Seen(self.head(flow), seen, after)


def detached(states: Sequence[State]) -> list[State]:
    return [(h.detach(), c.detach()) for h, c in states]


def save(model: WordModel, folder: Path) -> None:
    """Writes the bundle, replacing an existing one. It has no dropout, which is for training only."""
    config = {
        "format": "cellkeeper-bundle/1",
        "name": "words",
        "cell": "lstm",
        "input_size": SIZE,
        "hidden_size": SIZE,
        "num_layers": LAYERS,
        "input": {"kind": "tokens", "vocabulary": VOCABULARY, "embedding_size": SIZE},
        "head": [{"units": VOCABULARY, "activation": "linear"}],
    }
    tensors = {_name(name): value.detach().numpy() for name, value in model.named_parameters()}
    if folder.exists():
        shutil.rmtree(folder)
    write_bundle(folder, config, tensors)


def load(folder: Path) -> WordModel:
    """Returns the model of a bundle that `save` wrote."""
    model, tensors = WordModel(), read_bundle(folder).tensors
    model.load_state_dict({name: torch.tensor(tensors[_name(name)]) for name in model.state_dict()})
    return model.eval()


def _name(name: str) -> str:
    """Converts PyTorch's name to the bundle's: layers.1.weight_ih_l0 -> rnn.weight_ih_l1, head.bias -> head.0.bias."""
    if name.startswith("layers."):
        _, layer, weight = name.split(".")
        return f"rnn.{weight.removesuffix('l0')}l{layer}"
    return name.replace("head.", "head.0.")
