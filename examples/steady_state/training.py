"""Trains a cell for one of the objectives."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .cell import SteadyCell
from .events import draw_streams
from .objectives import Objective

STEPS = 25
STREAMS = 128
UPDATES = 600
LEARNING_RATE = 1e-2


class Job(NamedTuple):
    objective: str
    seed: int
    updates: int = UPDATES


def train(job: Job) -> SteadyCell:
    torch.manual_seed(job.seed)
    generator = torch.Generator().manual_seed(job.seed)
    cell, objective = SteadyCell(), Objective(job.objective)
    parameters = [*cell.parameters(), *objective.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=job.updates, pct_start=0.1)
    for _ in range(job.updates):
        streams = draw_streams(generator, STEPS, STREAMS)
        loss = objective(cell(streams.inputs), streams.again)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    return cell
