"""python -m examples.recipes.enhancer: a speech enhancer like GTCRN, with its shapes and random weights.

One frame of a short-time spectrum goes in and one comes out: mix [1, 257, 1, 2] (frequencies, one frame, real and
imaginary). Three caches carry what earlier frames left: inputs of dilated convolutions, attention over time, and GRUs
over time. Like such models it is exported with a batch of one, so `input_shape` says what a time step is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from cellkeeper_service.converters import Imported, import_onnx
from torch import Tensor, nn

from .compare import Array, Recipe, main
from .exporting import exported

BINS, BANDS, CHANNELS, WIDTH = 257, 129, 16, 33
DILATIONS = (1, 2, 5)  # in frames; with kernels of 3 they reach back 2, 4 and 10 frames, 16 in all
CACHES = {
    "conv_cache": (2, 1, CHANNELS, 16, WIDTH),
    "tra_cache": (2, 3, 1, 1, CHANNELS),
    "inter_cache": (2, 1, WIDTH, CHANNELS),
}


class Block(nn.Module):
    """A convolution over the latest frames, and attention by the energy so far. [1, 16, 1, 33]."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.reach = 2 * dilation
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=(0, 1), dilation=(dilation, 1), groups=CHANNELS)
        self.mix, self.attention = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.GRU(CHANNELS, CHANNELS)

    def forward(self, x: Tensor, past: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        frames = torch.cat([past, x], 2)
        y = self.mix(F.relu(self.conv(frames)))
        weight, h = self.attention(y.square().mean(-1).permute(2, 0, 1), h)
        return x + y * torch.sigmoid(weight).permute(1, 2, 0)[..., None], frames[:, :, 1:], h


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList(Block(dilation) for dilation in DILATIONS)

    def forward(self, x: Tensor, conv_cache: Tensor, tra_cache: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pasts, energies, at = [], [], 0
        for number, block in enumerate(self.each):
            end = at + 2 * DILATIONS[number]
            x, past, h = block(x, conv_cache[:, :, at:end], tra_cache[number])
            pasts.append(past)
            energies.append(h)
            at = end
        return x, torch.cat(pasts, 2), torch.stack(energies)


class DualPath(nn.Module):
    """A bidirectional GRU over the frequencies of the frame, then one over time for each frequency. [1, 16, 1, 33]."""

    def __init__(self) -> None:
        super().__init__()
        self.intra = nn.GRU(CHANNELS, CHANNELS // 2, bidirectional=True, batch_first=True)
        self.inter = nn.GRU(CHANNELS, CHANNELS)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        rows = x[:, :, 0].transpose(1, 2)  # [1, 33, 16]
        rows = rows + self.intra(rows)[0]
        y, h = self.inter(rows, h)
        return (rows + y).transpose(1, 2)[:, :, None], h


class Enhancer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bands, self.bins = nn.Linear(BINS, BANDS), nn.Linear(BANDS, BINS)
        self.down = nn.ModuleList(nn.Conv2d(c, CHANNELS, (1, 5), (1, 2), (0, 2)) for c in (3, CHANNELS))
        self.up = nn.ModuleList(nn.ConvTranspose2d(CHANNELS, c, (1, 5), (1, 2), (0, 2)) for c in (CHANNELS, 2))
        self.encoder, self.decoder = Blocks(), Blocks()
        self.paths = nn.ModuleList(DualPath() for _ in range(2))

    def forward(
        self, mix: Tensor, conv_cache: Tensor, tra_cache: Tensor, inter_cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        real, imaginary = mix[..., 0].transpose(1, 2), mix[..., 1].transpose(1, 2)  # [1, 1, 257]
        size = torch.sqrt(real.square() + imaginary.square() + 1e-12)
        x = self.bands(torch.stack([size, real, imaginary], 1))
        for conv in self.down:
            x = F.relu(conv(x))
        x, first_past, first_energy = self.encoder(x, conv_cache[0], tra_cache[0])
        carried = []
        for number, path in enumerate(self.paths):
            x, h = path(x, inter_cache[number : number + 1, 0])
            carried.append(h)
        x, second_past, second_energy = self.decoder(x, conv_cache[1], tra_cache[1])
        x = self.up[1](F.relu(self.up[0](x)))
        mask = torch.tanh(self.bins(x))
        enhanced = torch.stack(
            [mask[:, 0] * real - mask[:, 1] * imaginary, mask[:, 0] * imaginary + mask[:, 1] * real], -1
        )
        return (
            enhanced.transpose(1, 2),
            torch.stack([first_past, second_past]),
            torch.stack([first_energy, second_energy]),
            torch.stack(carried),
        )


def graph() -> bytes:
    torch.manual_seed(0)
    caches = list(CACHES)
    example = (torch.zeros(1, BINS, 1, 2), *(torch.zeros(shape) for shape in CACHES.values()))
    return exported(Enhancer(), example, (["mix", *caches], ["enh", *(f"{name}_out" for name in caches)]), {})


def looped(model: bytes, frames: Array) -> Array:
    """Returns onnxruntime's output frames, computed in a loop that carries the caches by hand."""
    session = onnxruntime.InferenceSession(model)
    caches = {name: np.zeros(shape, np.float32) for name, shape in CACHES.items()}
    enhanced = []
    for frame in frames:
        frame, *after = session.run(None, {"mix": frame[None], **caches})
        enhanced.append(frame[0])
        caches = dict(zip(CACHES, after, strict=True))
    return np.stack(enhanced)


def recipe() -> Recipe:
    model = graph()
    frames = np.random.default_rng(0).standard_normal((60, BINS, 1, 2)).astype(np.float32)

    def into(folder: Path) -> Imported:
        return import_onnx(model, folder, input_shape=(BINS, 1, 2))

    return Recipe("enhancer", into, list(frames), looped(model, frames), exact=True)


if __name__ == "__main__":
    main(recipe())
