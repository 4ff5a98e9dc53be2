"""Trains an ensemble on windows of 22 steps, from a zero state or with the state carried between windows."""

from __future__ import annotations

import torch

from .ensemble import Ensemble, State
from .series import draw_series
from .variants import Variant, losses

WINDOW = 22
WARM_UP_STEPS = 8  # of a window from a zero state, without a loss
STREAMS = 32
UPDATES = 600
LEARNING_RATE = 1e-2


def train(variants: tuple[Variant, ...], seed: int, carry: bool, updates: int = UPDATES) -> Ensemble:
    """Trains an ensemble. carry: windows in order, with the state; otherwise random windows and zero states."""
    torch.manual_seed(seed)
    series = draw_series(1000 + seed, WINDOW * updates, STREAMS)
    features, target = torch.from_numpy(series.features), torch.from_numpy(series.target)
    model = Ensemble(len(variants))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=updates, pct_start=0.1)
    state: State | None = None
    for update in range(updates):
        span = slice(update * WINDOW, (update + 1) * WINDOW)
        counted = slice(0 if state is not None else WARM_UP_STEPS, None)
        outputs, after = model(features[span], state)
        loss = losses(variants, outputs[:, counted], target[span][counted])
        optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        model.clip(1.0)
        optimizer.step()
        schedule.step()
        state = (after[0].detach(), after[1].detach()) if carry else None
    return model
