"""What a model is worth on held-out text: with the state carried, with the state reset, and by context length."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .model import CharacterModel
from .training import WINDOW

STREAMS = 8  # the held-out text is read as so many long streams
STRIDE = 128  # of the windows that are read from zero state, for the losses by context length
CONTEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # upper ends: 1; 2; 3-4; 5-8; ...


def carried(model: CharacterModel, ids: Tensor) -> float:
    """Bits per character with the state never reset, behind the longest context."""
    losses = _losses(model, _rows(ids))[CONTEXTS[-1] :]
    return _bits(losses[: len(losses) // WINDOW * WINDOW])


def reset(model: CharacterModel, ids: Tensor) -> float:
    """Bits per character of the same characters, each window of the training's length read from zero state."""
    rows = _rows(ids)[CONTEXTS[-1] :]
    windows = [rows[start : start + WINDOW + 1] for start in range(0, len(rows) - WINDOW, WINDOW)]
    return _bits(_losses(model, torch.cat(windows, dim=1)))


def by_context(model: CharacterModel, ids: Tensor) -> list[float]:
    """Bits per character after a reset, by how many characters were read since: one for each of CONTEXTS."""
    longest = CONTEXTS[-1]
    starts = torch.arange(0, len(ids) - longest - 1, STRIDE)
    losses = _losses(model, ids[starts[None, :] + torch.arange(longest + 1)[:, None]])
    firsts = (0, *CONTEXTS[:-1])
    return [_bits(losses[first:end]) for first, end in zip(firsts, CONTEXTS, strict=True)]


def _rows(ids: Tensor) -> Tensor:
    """[N // STREAMS, STREAMS], in time order within each column."""
    return ids[: len(ids) // STREAMS * STREAMS].reshape(STREAMS, -1).T


def _losses(model: CharacterModel, ids: Tensor) -> Tensor:
    """ids [T + 1, B] read from zero state -> loss of each next character [T, B]."""
    with torch.no_grad():
        logits, _ = model(ids[:-1])
        losses: Tensor = nn.functional.cross_entropy(logits.flatten(0, 1), ids[1:].flatten(), reduction="none")
    return losses.reshape(len(ids) - 1, -1)


def _bits(losses: Tensor) -> float:
    return float(losses.double().mean()) / math.log(2)
