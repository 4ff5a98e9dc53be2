"""The character model: an embedding, one LSTM layer, a linear head."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from cellkeeper_service.model.bundle import read_bundle
from cellkeeper_service.model.write import write_bundle
from torch import Tensor, nn

from .text import VOCABULARY

EMBEDDING_SIZE = 32
HIDDEN_SIZE = 96

State = tuple[Tensor, Tensor]


class CharacterModel(nn.Module):
    """Character ids [T, B] and a state -> logits of the next character [T, B, vocabulary] and the state after."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, EMBEDDING_SIZE)
        self.rnn = nn.LSTM(EMBEDDING_SIZE, HIDDEN_SIZE)
        self.head = nn.Linear(HIDDEN_SIZE, VOCABULARY)

    def forward(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """state: None: zeros, which is all that "stateless" means."""
        hidden, state = self.rnn(self.embedding(ids), state)
        return self.head(hidden), state


def save(model: CharacterModel, folder: Path) -> None:
    """Writes the bundle, replacing an existing one. Its prediction is the logits."""
    config = {
        "format": "cellkeeper-bundle/1",
        "name": "characters",
        "cell": "lstm",
        "input_size": EMBEDDING_SIZE,
        "hidden_size": HIDDEN_SIZE,
        "num_layers": 1,
        "input": {"kind": "tokens", "vocabulary": VOCABULARY, "embedding_size": EMBEDDING_SIZE},
        "head": [{"units": VOCABULARY, "activation": "linear"}],
    }
    tensors = {_name(name): value.detach().numpy() for name, value in model.named_parameters()}
    if folder.exists():
        shutil.rmtree(folder)
    write_bundle(folder, config, tensors)


def load(folder: Path) -> CharacterModel:
    """Returns the model of a bundle that `save` wrote."""
    model, tensors = CharacterModel(), read_bundle(folder).tensors
    model.load_state_dict({name: torch.tensor(tensors[_name(name)]) for name in model.state_dict()})
    return model


def _name(name: str) -> str:
    """Converts PyTorch's name to the bundle's."""
    return name.replace("head.", "head.0.")
