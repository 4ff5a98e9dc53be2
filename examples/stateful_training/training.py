"""One model, with four ways to feed it. They differ only in the source of a window's first state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .model import CharacterModel, State
from .text import load_text

WINDOW = 16  # characters between updates; no gradient reaches further back
ROWS = 32
UPDATES = 1200
LEARNING_RATE = 6e-3

RESET_SHARE = 0.1  # of the rows, before each window, in the last way

ZERO, CARRIED, MISMATCHED, SOMETIMES = WAYS = (
    "zero state, shuffled",
    "carried, in order",
    "carried, but shuffled",
    "carried, in order, 10 % reset",
)


class Job(NamedTuple):
    way: str
    seed: int
    updates: int = UPDATES


def train(job: Job) -> CharacterModel:
    """Trains one model by truncated back-propagation: the state is detached from its past before each window."""
    torch.manual_seed(job.seed)
    model = CharacterModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=job.updates, pct_start=0.1)
    text = load_text().train
    windows = streams(text) if job.way in (CARRIED, SOMETIMES) else shuffled(text)
    state: State | None = None
    for _ in range(job.updates):
        inputs, wanted = next(windows)
        state = first_state(job.way, state)
        logits, state = model(inputs, state)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


def first_state(way: str, last: State | None) -> State | None:
    """Returns the first state of a window, given the last one of the previous window: h and c, [1, ROWS, hidden]
    each."""
    if way == ZERO or last is None:
        return None
    kept = torch.ones(ROWS, 1)
    if way == SOMETIMES:
        kept = (torch.rand(ROWS, 1) >= RESET_SHARE).float()
    h, c = (part.detach() * kept for part in last)
    return h, c


def shuffled(ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields random windows: row 5 of a batch has nothing to do with row 5 of the previous batch."""
    while True:
        starts = torch.randint(0, len(ids) - WINDOW - 1, (ROWS,))
        yield _windows(ids, starts)


def streams(ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields windows of ROWS long streams of the text, read side by side.

    Each row continues that row of the previous batch. At the end of the text a row continues at its beginning; the
    rows' starting points are random.
    """
    starts = torch.arange(ROWS) * (len(ids) // ROWS) + int(torch.randint(0, len(ids), ()))
    while True:
        yield _windows(ids, starts)
        starts = starts + WINDOW


def _windows(ids: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Returns inputs and what follows each of them: [WINDOW, ROWS] both."""
    places = (starts[None, :] + torch.arange(WINDOW + 1)[:, None]) % len(ids)
    return ids[places[:-1]], ids[places[1:]]
