"""The quality of a model on held-out text: with the state carried, with the state reset, and by context length."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .model import CharacterModel
from .training import WINDOW

STREAMS = 8  # the held-out text is read as this many long streams
STRIDE = 128  # between the windows that are read from a zero state, for the losses by context length
CONTEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # upper ends: 1; 2; 3-4; 5-8; ...


def carried(model: CharacterModel, ids: Tensor) -> float:
    """Returns bits per character with the state never reset, after the longest context."""
    losses = _losses(model, _rows(ids))[CONTEXTS[-1] :]
    return _bits(losses[: len(losses) // WINDOW * WINDOW])


def reset(model: CharacterModel, ids: Tensor) -> float:
    """Returns bits per character for the same characters, each training window read from a zero state."""
    rows = _rows(ids)[CONTEXTS[-1] :]
    windows = [rows[start : start + WINDOW + 1] for start in range(0, len(rows) - WINDOW, WINDOW)]
    return _bits(_losses(model, torch.cat(windows, dim=1)))


def by_context(model: CharacterModel, ids: Tensor) -> list[float]:
    """Returns bits per character by the number of characters read since a reset: one for each of CONTEXTS."""
    longest = CONTEXTS[-1]
    starts = torch.arange(0, len(ids) - longest - 1, STRIDE)
    losses = _losses(model, ids[starts[None, :] + torch.arange(longest + 1)[:, None]])
    firsts = (0, *CONTEXTS[:-1])
    return [_bits(losses[first:end]) for first, end in zip(firsts, CONTEXTS, strict=True)]


def _rows(ids: Tensor) -> Tensor:
    """Returns [N // STREAMS, STREAMS], in time order within each column."""
    return ids[: len(ids) // STREAMS * STREAMS].reshape(STREAMS, -1).T


def _losses(model: CharacterModel, ids: Tensor) -> Tensor:
    """Reads ids [T + 1, B] from a zero state -> loss of each next character [T, B]."""
    with torch.no_grad():
        logits, _ = model(ids[:-1])
        losses: Tensor = nn.functional.cross_entropy(logits.flatten(0, 1), ids[1:].flatten(), reduction="none")
    return losses.reshape(len(ids) - 1, -1)


def _bits(losses: Tensor) -> float:
    return float(losses.double().mean()) / math.log(2)
