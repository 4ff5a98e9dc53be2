"""The modules of docs/models.md, "Adapt a forward", around a forward that is refused as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellkeeper_service.converters import ImportRefused, import_torch
from cellkeeper_service.engine.load import offline
from torch import Tensor, nn

STEPS = 9
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # the exporter's own


class Adapted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Mask(nn.Module):
    """x: a spectrogram [B, F, T]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.rnn(x.transpose(1, 2))[0])).transpose(1, 2) * x


class TimeAxis(Adapted):
    def forward(self, x: Tensor) -> Any:
        return self.model(x.transpose(1, 2)).transpose(1, 2)


class Channel(nn.Module):
    """x: [B, 1, T, F], convolved over F."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn = nn.Conv2d(1, 2, (1, 3), (1, 2)), nn.GRU(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.conv(x)).permute(0, 2, 1, 3)
        y: Tensor = self.rnn(inner.flatten(2))[0][:, None]
        return y * x


class ChannelAxis(Adapted):
    def forward(self, x: Tensor) -> Any:
        return self.model(x[:, None])[:, 0]


class Numbers(nn.Module):
    """x: [B, T], one number a time step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(1, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 8)
        outputs = []
        for value in torch.split(x, 1, dim=1):
            h, c = self.cell(value, (h, c))
            outputs.append(self.out(h))
        return torch.cat(outputs, 1)


class FeatureAxis(Adapted):
    def forward(self, x: Tensor) -> Any:
        return self.model(x[..., 0])[..., None]


class Category(nn.Module):
    """x: [B, T, 1 + F], whose first feature is a category."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.rnn, self.out = nn.Embedding(4, 3), nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Any:
        return self.out(self.rnn(torch.cat([self.table(x[..., 0].long()), x[..., 1:]], -1))[0])


class OwnCategory(Adapted):
    def forward(self, x: Tensor, kind: Tensor) -> Any:
        return self.model(torch.cat([kind[..., None].float(), x], -1))


def sequence(features: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(6).standard_normal((1, STEPS, features)).astype(np.float32))


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(3)
    return kind().eval()


def imported(model: nn.Module, folder: Path, **options: Any) -> Path:
    import_torch(model, folder, max_batch=8, report=str, **options)
    return folder


@pytest.mark.parametrize(
    ("kind", "adapted", "features", "options"),
    [
        (Mask, TimeAxis, 6, {}),
        (Channel, ChannelAxis, 6, {}),
        (Numbers, FeatureAxis, 1, {"layout": "batch_first"}),
    ],
)
def test_other_axes(
    tmp_path: Path, kind: type[nn.Module], adapted: Callable[[nn.Module], nn.Module], features: int, options: Any
) -> None:
    model, x = made(kind), sequence(features)
    own = {"TimeAxis": x.transpose(1, 2), "ChannelAxis": x[:, None], "FeatureAxis": x[..., 0]}[adapted.__name__]
    with pytest.raises(ImportRefused):
        imported(model, tmp_path / "refused", example=torch.zeros_like(own), **options)
    folder = imported(adapted(model), tmp_path / "m", example=torch.zeros_like(x), **options)
    with torch.no_grad():
        expected = adapted(model)(x)[0].numpy()
    np.testing.assert_allclose(offline(folder, x[0].numpy())["prediction"], expected, atol=1e-5)


def test_a_category_among_the_features(tmp_path: Path) -> None:
    model, x, kind = made(Category), sequence(2), np.arange(STEPS) % 4
    with pytest.raises(ImportRefused, match="fails on random values of the example's kind"):
        imported(model, tmp_path / "refused", example=torch.zeros(1, STEPS, 3))
    example = torch.zeros(1, STEPS, 2), torch.zeros(1, STEPS, dtype=torch.int64)
    folder = imported(OwnCategory(model), tmp_path / "m", example=example, vocabulary={"kind": 4})
    whole = torch.cat([torch.from_numpy(kind)[None, :, None].float(), x], -1)
    with torch.no_grad():
        expected = model(whole)[0].numpy()
    got = offline(folder, {"x": x[0].numpy(), "kind": kind})["prediction"]
    np.testing.assert_allclose(got, expected, atol=1e-5)
