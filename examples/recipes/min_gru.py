"""python -m examples.recipes.min_gru: minGRU, trained by a parallel scan over the sequence, served in its step form.

The scan is for training. A stream needs one time step, (x, h) -> (y, h), with the same weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from cellkeeper_service.converters import Imported, import_torch
from torch import Tensor, nn

from .compare import Recipe, main


class MinGru(nn.Module):
    """A cell whose gate sees only the input, in its step form: (x, h) -> (y, h). [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(3, 8)
        self.candidate = nn.Linear(3, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.sigmoid(self.gate(x))
        h = (1 - z) * h + z * self.candidate(x)
        return self.head(h), h


def scanned(model: MinGru, x: Tensor) -> Tensor:
    """[T, 3] -> [T, 2], all time steps at once: h_t is the sum over s <= t of b_s times all that is kept since."""
    kept, added = 1 - torch.sigmoid(model.gate(x)), torch.sigmoid(model.gate(x)) * model.candidate(x)
    since = torch.cumsum(torch.log(kept.double()), 0)  # [T, 8]
    reach = torch.tril(torch.ones(len(x), len(x))).bool()[..., None]
    weights = torch.where(reach, torch.exp(since[:, None] - since[None]), 0.0)
    result: Tensor = model.head((weights * added[None]).sum(1).float())
    return result


def recipe() -> Recipe:
    torch.manual_seed(0)
    model, x = MinGru().eval(), torch.randn(60, 3)

    def into(folder: Path) -> Imported:
        return import_torch(model, folder, example=x[:1], states=torch.zeros(1, 8))

    with torch.no_grad():
        expected = scanned(model, x).numpy()
    return Recipe("min_gru", into, list(x.numpy()), expected)


if __name__ == "__main__":
    main(recipe())
