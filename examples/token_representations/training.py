"""Trains the word model on 64 rows of text, 35 words at a time, with the state carried from window to window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .model import State, WordModel, detached
from .words import rows

ROWS = 64
WINDOW = 35
EPOCHS = 6
LEARNING_RATE = 8e-3


def train(ids: Tensor, seed: int, epochs: int = EPOCHS) -> WordModel:
    torch.manual_seed(seed)
    model = WordModel()
    columns = rows(ids, ROWS)
    starts = range(0, len(columns) - WINDOW, WINDOW)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * len(starts))
    for _ in range(epochs):
        states: list[State] | None = None
        for start in starts:
            part = columns[start : start + WINDOW + 1]
            seen = model(part[:-1], states)
            states = detached(seen.states)
            update(model, optimizer, seen.logits, part[1:])
            schedule.step()
    return model.eval()


def update(model: WordModel, optimizer: torch.optim.Optimizer, logits: Tensor, wanted: Tensor) -> None:
    """Makes one step of the optimiser. logits: [T, B, vocabulary]; wanted: [T, B]."""
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
