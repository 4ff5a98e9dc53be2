"""python -m examples.recipes.state_space: a diagonal state-space layer (LRU, S4D), served in its step form.

It is trained as a convolution. ONNX Runtime has no complex numbers, so the state is kept as real and imaginary parts.
"""

from __future__ import annotations

from pathlib import Path

import torch
from cellkeeper_service.converters import Imported, import_torch
from torch import Tensor, nn

from .compare import Recipe, main


class StateSpace(nn.Module):
    """A diagonal state-space layer (LRU) in real arithmetic, in its step form: (x, re, im) -> (y, re, im). [B, 3]."""

    def __init__(self, size: int = 12) -> None:
        super().__init__()
        radius, angle = torch.rand(size) * 0.3 + 0.6, torch.rand(size)
        self.real, self.imaginary = nn.Parameter(radius * angle.cos()), nn.Parameter(radius * angle.sin())
        self.into_real, self.into_imaginary = nn.Linear(3, size, bias=False), nn.Linear(3, size, bias=False)
        self.out = nn.Linear(2 * size, 2)

    def forward(self, x: Tensor, re: Tensor, im: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        after_re = self.real * re - self.imaginary * im + self.into_real(x)
        after_im = self.real * im + self.imaginary * re + self.into_imaginary(x)
        return self.out(torch.cat([after_re, after_im], -1)), after_re, after_im


def convolved(model: StateSpace, x: Tensor) -> Tensor:
    """[T, 3] -> [T, 2], all time steps at once, in complex numbers, as the layer is trained."""
    powers = torch.complex(model.real, model.imaginary)[None] ** torch.arange(len(x))[:, None]  # [T, size]
    into = torch.complex(model.into_real(x), model.into_imaginary(x))
    states = [(powers[: t + 1].flip(0) * into[: t + 1]).sum(0) for t in range(len(x))]
    after = torch.stack(states)
    result: Tensor = model.out(torch.cat([after.real, after.imag], -1))
    return result


def recipe() -> Recipe:
    torch.manual_seed(0)
    model, x = StateSpace().eval(), torch.randn(60, 3)
    zeros = torch.zeros(1, len(model.real))

    def into(folder: Path) -> Imported:
        return import_torch(model, folder, example=x[:1], states=(zeros, zeros))

    with torch.no_grad():
        expected = convolved(model, x).numpy()
    return Recipe("state_space", into, list(x.numpy()), expected)


if __name__ == "__main__":
    main(recipe())
