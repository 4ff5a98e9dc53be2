"""python -m examples.recipes.residual_lstm: recurrent layers with layer normalisation, residual paths and a gate.

An example of the input is enough: the import finds the recurrent layers by watching the forward pass.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from cellkeeper_service.converters import Imported, import_torch
from torch import Tensor, nn

from .compare import Recipe, main


class Residual(nn.Module):
    """Layer normalisation, paths around recurrent layers, a gate, and a concatenation with the input. [B, T, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 16)
        self.norm = nn.LayerNorm(16)
        self.lstm = nn.LSTM(16, 16, 2, batch_first=True)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.head = nn.Linear(35, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = F.gelu(self.embed(x))
        y, _ = self.lstm(self.norm(a))
        z, _ = self.gru(a + y)
        result: Tensor = self.head(torch.cat([z * torch.sigmoid(a), y, x], -1))
        return result


def recipe() -> Recipe:
    torch.manual_seed(0)
    model, x = Residual().eval(), torch.randn(1, 60, 3)

    def into(folder: Path) -> Imported:
        return import_torch(model, folder, example=x)

    with torch.no_grad():
        expected = model(x)[0].numpy()  # for the whole sequence
    return Recipe("residual_lstm", into, list(x[0].numpy()), expected)


if __name__ == "__main__":
    main(recipe())
