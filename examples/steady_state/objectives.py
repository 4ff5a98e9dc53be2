"""What the cell is trained for.

All objectives keep the state close to the previous one; they differ in what keeps it from vanishing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .cell import STATE_SIZE
from .events import SYMBOLS

FIRST_TOLD_STEP = 10  # before this, many streams have shown nothing yet
COVARIANCE_WEIGHT = 0.5
INFORMATION_WEIGHT = 1.0

NAIVE, NORM, VARIANCE, INFORMATION = OBJECTIVES = (
    "closeness alone",
    "norm held at 1",
    "variance and covariance",
    "norm and information",
)


class Objective(nn.Module):
    """The loss of states [T, B, STATE_SIZE]. again: the latest symbol at each time step, with other noise."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.key = nn.Linear(SYMBOLS, STATE_SIZE)  # for INFORMATION

    def forward(self, states: Tensor, again: Tensor) -> Tensor:
        loss = closeness(states)
        if self.name in (NORM, INFORMATION):
            loss = loss + unit_norm(states)
        if self.name == VARIANCE:
            loss = loss + variance(states) + COVARIANCE_WEIGHT * covariance(states)
        if self.name == INFORMATION:
            loss = loss + INFORMATION_WEIGHT * self.information(states, again)
        return loss

    def information(self, states: Tensor, again: Tensor) -> Tensor:
        """Returns InfoNCE: which stream of the batch has that latest symbol?

        The state's information about it is at least log(B) less this, in nats. The symbol has other noise than the
        cell's input, so that learning the noise gains nothing.
        """
        scores = states[FIRST_TOLD_STEP:] @ self.key(again[FIRST_TOLD_STEP:]).transpose(1, 2)
        streams = torch.arange(scores.shape[1])
        return torch.stack([nn.functional.cross_entropy(each, streams) for each in scores]).mean()


def closeness(states: Tensor) -> Tensor:
    return ((states[1:] - states[:-1]) ** 2).sum(dim=2).mean()


def unit_norm(states: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(states, dim=2)
    return ((norms - 1) ** 2).mean()


def variance(states: Tensor) -> Tensor:
    """Penalises units that spread over the batch less than a state of norm 1 allows."""
    wanted = STATE_SIZE**-0.5
    spread = torch.sqrt(states[-1].var(dim=0) + 1e-6)
    return torch.relu(wanted - spread).square().sum()


def covariance(states: Tensor) -> Tensor:
    """Penalises pairs of units that carry the same information over the batch."""
    matrix = torch.cov(states[-1].T) * STATE_SIZE
    return (matrix - torch.diag(matrix.diag())).square().sum() / STATE_SIZE
