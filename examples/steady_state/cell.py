"""A custom cell: s' = relu(s + W s + U x + b), whose state stays where it is unless something pushes it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .events import SYMBOLS

STATE_SIZE = 32


class SteadyCell(nn.Module):
    """inputs [T, B, SYMBOLS] -> the state after each time step [T, B, STATE_SIZE]. The first state is zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.onward = nn.Parameter(0.1 * torch.randn(STATE_SIZE, STATE_SIZE) / STATE_SIZE**0.5)
        self.inward = nn.Parameter(torch.randn(SYMBOLS, STATE_SIZE) / STATE_SIZE**0.5)
        self.bias = nn.Parameter(torch.zeros(STATE_SIZE))

    def forward(self, inputs: Tensor) -> Tensor:
        state = torch.zeros(inputs.shape[1], STATE_SIZE)
        states = []
        for pushed in inputs @ self.inward + self.bias:
            state = torch.relu(state + state @ self.onward + pushed)
            states.append(state)
        return torch.stack(states)
