"""python -m examples.recipes.keyword_spotter: causal convolutions and a GRU over them.

The last inputs of each convolution become a state, so a session can be stepped frame by frame.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from cellkeeper_service.converters import Imported, import_torch
from torch import Tensor, nn

from .compare import Recipe, main


class Spotter(nn.Module):
    """Causal convolutions, padded before and cut off after, then a GRU, as in keyword spotters. [B, T, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(8, 16, 3)
        self.second = nn.Conv1d(16, 16, 3, dilation=2, padding=4)
        self.rnn = nn.GRU(16, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(F.pad(x.transpose(1, 2), (2, 0))))
        y = F.relu(self.second(y)[..., :-4]) + y
        result: Tensor = self.head(self.rnn(y.transpose(1, 2))[0])
        return result


def recipe() -> Recipe:
    torch.manual_seed(0)
    model, frames = Spotter().eval(), torch.randn(1, 60, 8)

    def into(folder: Path) -> Imported:
        return import_torch(model, folder, example=frames)

    with torch.no_grad():
        expected = model(frames)[0].numpy()
    return Recipe("keyword_spotter", into, list(frames[0].numpy()), expected)


if __name__ == "__main__":
    main(recipe())
