"""Right and wrong ways to read a text with a trained model: the loss of each over the same words."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .model import State, WordModel, detached
from .training import LEARNING_RATE, WINDOW, update
from .words import VOCABULARY

Losses = Callable[[WordModel, Tensor], float]


class Way(NamedTuple):
    """A way to read. name: for the table. shape: rows x words in one call. loss: nats per word, over ids [T + 1, B]."""

    name: str
    shape: str
    loss: Losses


COUNTED = slice(None, None, 4)  # rows whose losses count: one word at a time is slow


def windows(model: WordModel, ids: Tensor) -> float:
    """Reads all rows together, WINDOW words at a time, with the state carried."""
    states: list[State] | None = None
    losses = []
    for inputs, wanted in _windows(ids):
        seen = model(inputs, states)
        states = seen.states
        losses.append(_losses(seen.logits[:, COUNTED], wanted[:, COUNTED]))
    return _mean(losses)


def windows_reset(model: WordModel, ids: Tensor) -> float:
    """The same without the state: every window starts from zero."""
    return _mean([_losses(model(x).logits[:, COUNTED], y[:, COUNTED]) for x, y in _windows(ids)])


def windows_transposed(model: WordModel, ids: Tensor) -> float:
    """Exchanges rows and time: a batch-first tensor for a time-first layer, which passes the state from row to row."""
    return _mean([_losses(model(x.T).logits[COUNTED], y.T[COUNTED]) for x, y in _windows(ids)])


def windows_untrained(model: WordModel, ids: Tensor) -> float:
    """Does not load the weights."""
    return windows(WordModel().eval(), ids)


def windows_other_ids(model: WordModel, ids: Tensor) -> float:
    """Takes ids from a vocabulary rebuilt from the text that is read: its most common word is 0 ..."""
    counts = torch.bincount(ids.flatten(), minlength=VOCABULARY)
    other = torch.empty(VOCABULARY, dtype=torch.int64)
    other[torch.argsort(counts, descending=True, stable=True)] = torch.arange(VOCABULARY)
    return windows(model, other[ids])


def single(model: WordModel, ids: Tensor) -> float:
    """Reads one row at a time, one word at a time, with the state carried."""
    return _mean(list(_single(model, ids)))


def single_reset(model: WordModel, ids: Tensor) -> float:
    """Drops the state: to the model, each word is the first one.

    It reads all words in one call, which is the same, since no word affects another.
    """
    x, y = ids[:-1, COUNTED].reshape(1, -1), ids[1:, COUNTED].reshape(1, -1)
    return _mean([_losses(model(x).logits, y)])


def single_dropout(model: WordModel, ids: Tensor) -> float:
    """Keeps the state, but in training mode."""
    return _mean(list(_single(model.train(), ids)))


def single_reset_dropout(model: WordModel, ids: Tensor) -> float:
    return single_reset(model.train(), ids)


def single_shared(model: WordModel, ids: Tensor) -> float:
    """Reads one word of each row in turn, all through one state."""
    states: list[State] | None = None
    losses = []
    for pair in _pairs(ids[:, COUNTED]):
        seen = model(pair[:1], states)
        states = seen.states
        losses.append(_losses(seen.logits, pair[1:]))
    return _mean(losses)


def single_training(model: WordModel, ids: Tensor) -> float:
    """Keeps the state, but lets the optimiser continue as in training: one step for each word."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    losses = []
    with torch.enable_grad():
        for row in ids[:, COUNTED].T:
            states: list[State] | None = None
            for word, following in pairwise(row):
                seen = model(word.reshape(1, 1), states)
                states = detached(seen.states)
                losses.append(_losses(seen.logits.detach(), following.reshape(1, 1)))
                update(model, optimizer, seen.logits, following.reshape(1, 1))
    return _mean(losses)


RIGHT = Way("as in training, evaluation mode", "64 x 35", windows)
STREAMED = Way("word by word, state carried", "1 x 1", single)
WAYS = (
    RIGHT,
    STREAMED,
    Way("dropout left on", "1 x 1", single_dropout),
    Way("state dropped after each window", "64 x 35", windows_reset),
    Way("state dropped after each word", "1 x 1", single_reset),
    Way("state dropped and dropout left on", "1 x 1", single_reset_dropout),
    Way("one state for all rows in turn", "1 x 1", single_shared),
    Way("rows and time exchanged", "35 x 64", windows_transposed),
    Way("the optimiser left on", "1 x 1", single_training),
    Way("the weights not loaded", "64 x 35", windows_untrained),
    Way("ids of another vocabulary", "64 x 35", windows_other_ids),
)


def measure(model: WordModel, ids: Tensor, way: Way, seed: int) -> float:
    """Returns nats per word. The model itself does not change."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return way.loss(copy.deepcopy(model).eval(), ids)


def _windows(ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields inputs and what follows each of them, WINDOW words at a time."""
    for start in range(0, len(ids) - 1, WINDOW):
        yield ids[start : start + WINDOW], ids[start + 1 : start + WINDOW + 1]


def _single(model: WordModel, ids: Tensor) -> Iterator[Tensor]:
    for row in ids[:, COUNTED].T:
        states: list[State] | None = None
        for word, following in pairwise(row):
            seen = model(word.reshape(1, 1), states)
            states = seen.states
            yield _losses(seen.logits, following.reshape(1, 1))


def _pairs(ids: Tensor) -> Iterator[Tensor]:
    """Yields each word with the one after it, [2, 1], from the rows in turn."""
    for before, after in pairwise(ids):
        for pair in torch.stack([before, after]).T:
            yield pair[:, None]


def _losses(logits: Tensor, wanted: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")


def _mean(losses: list[Tensor]) -> float:
    return float(torch.cat(losses).double().mean())
