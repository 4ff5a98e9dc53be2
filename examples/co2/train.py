"""Trains the CO2 forecaster and writes its bundle: python -m examples.co2.train [--out FOLDER] [--seed N]

It has one LSTM layer and a linear head. Week by week it takes the concentration in ppm and predicts it 1, 4 and 13
weeks ahead. It learns from 1958 to 1992 and is evaluated on 1993 to 2001, nearly all of it higher. It trains on shifted
and rescaled copies, so that it learns to ignore the level.
"""

from __future__ import annotations

import argparse
import cmath
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cellkeeper_service.model.write import write_bundle
from torch import Tensor, nn

from .series import CENTRE_PPM, Floats, held, load_series

HORIZONS_WEEKS = (1, 4, 13)
FIRST_TEST_WEEK = np.datetime64("1993-01-01")
YEAR_WEEKS = 52
HIDDEN_SIZE = 64
SCALE_PPM = 50.0
WINDOW_WEEKS = 208
WARM_UP_WEEKS = 52  # without a loss: it must see a year to know its swing
BATCH = 48
LEARNING_RATE = 1e-5  # small, because the filters are finely balanced
ITERATIONS = 1500
AVERAGES = (0.0, 0.5, 0.75, 0.9, 0.96)  # memory from week to week
SWINGS = ((52.18, 0.97), (52.18, 0.9), (26.09, 0.97), (26.09, 0.9))  # period in weeks, memory from week to week
RIDGE = 1e-9


class Forecaster(nn.Module):
    """[T, B, 1] normalised values -> [T, B, 3] normalised forecasts."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(1, HIDDEN_SIZE)
        self.head = nn.Linear(HIDDEN_SIZE, len(HORIZONS_WEEKS))
        self._start_as_filters()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden, _ = self.rnn(inputs)
        predictions: Tensor = self.head(hidden)
        return predictions

    def _start_as_filters(self) -> None:
        """Starts the first units as filters, which are linear while their values are small.

        They are leaky averages of the input, and pairs of units that oscillate with the yearly period and twice its
        frequency. A linear head on them can already forecast; training adds the rest. From random weights, it would
        take far longer to learn the yearly swing, 6 ppm on top of 340.
        """
        size = HIDDEN_SIZE
        weights = dict(self.rnn.named_parameters())
        gates = {name: slice(i * size, (i + 1) * size) for i, name in enumerate("ifgo")}
        used = len(AVERAGES) + 2 * len(SWINGS)
        forget, gain, coupling = torch.zeros(used), torch.zeros(used), torch.zeros(used, size)
        for unit, memory in enumerate(AVERAGES):
            forget[unit], gain[unit] = memory, 0.15 * (1 - memory)
        for pair, (period_weeks, memory) in enumerate(SWINGS):
            first = len(AVERAGES) + 2 * pair
            turn = 2 * math.pi / period_weeks
            forget[first : first + 2] = memory * math.cos(turn)
            coupling[first, first + 1] = -memory * math.sin(turn)
            coupling[first + 1, first] = memory * math.sin(turn)
            gain[first] = 0.15 * abs(1 - memory * cmath.exp(1j * turn))
        with torch.no_grad():
            for gate in "ifo":  # the filters' gates do not depend on the input
                weights["weight_ih_l0"][gates[gate]][:used] = 0.0
                weights["weight_hh_l0"][gates[gate]][:used] = 0.0
                weights["bias_ih_l0"][gates[gate]][:used] = 6.0
            weights["bias_ih_l0"][gates["f"]][:used] = torch.logit(forget, eps=1e-3)
            weights["bias_ih_l0"][gates["f"]][used:] = 1.0  # the other units remember
            weights["weight_ih_l0"][gates["g"]][:used, 0] = gain
            weights["weight_hh_l0"][gates["g"]][:used] = coupling
            weights["bias_ih_l0"][gates["g"]][:used] = 0.0
            weights["bias_hh_l0"][:] = 0.0

    def fit_head(self, inputs: Tensor, wanted: Tensor, known: Tensor) -> None:
        """Fits the head alone by least squares. inputs: [T, B, 1]; wanted, known: [T, B, 3]."""
        with torch.no_grad():
            hidden, _ = self.rnn(inputs)
            ones = torch.ones(*hidden.shape[:2], 1)
            features = torch.cat([hidden, ones], dim=2).double()
            for output in range(wanted.shape[2]):
                rows = known[..., output]
                x, y = features[rows], wanted[..., output][rows].double()
                normal = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.double)
                solution = torch.linalg.solve(normal, x.T @ y).float()
                self.head.weight[output] = solution[:-1]
                self.head.bias[output] = solution[-1]


def targets(ppm: Floats) -> Floats:
    """Returns what to predict at each week: [N, horizons], NaN if unknown."""
    columns = np.full((len(ppm), len(HORIZONS_WEEKS)), np.nan, dtype=np.float32)
    for i, horizon in enumerate(HORIZONS_WEEKS):
        columns[:-horizon, i] = ppm[horizon:]
    return columns


def train(ppm: Floats, seed: int) -> Forecaster:
    """Fits a forecaster to `ppm`, [N] with NaN for missing weeks."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    model = Forecaster()
    model.fit_head(*windows(ppm, draw, 300))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=ITERATIONS, pct_start=0.1)
    started = time.monotonic()
    for iteration in range(1, ITERATIONS + 1):
        inputs, wanted, known = windows(ppm, draw, BATCH)
        error = (model(inputs) - wanted)[known] * SCALE_PPM
        loss = nn.functional.smooth_l1_loss(error, torch.zeros_like(error))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if iteration % 200 == 0 or iteration == 1:
            print(f"iteration {iteration:5d}  loss {loss.item():.4f}  {time.monotonic() - started:5.1f} s", flush=True)
    return model


def windows(ppm: Floats, draw: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws random pieces of the series, randomly shifted and rescaled.

    Returns inputs [T, count, 1] and targets [T, count, 3], both normalised, and bool [T, count, 3]: where the target is
    known and the warm-up is over.
    """
    starts = draw.integers(0, len(ppm) - WINDOW_WEEKS, count)
    weeks = starts[None, :] + np.arange(WINDOW_WEEKS)[:, None]
    scale = draw.uniform(0.8, 1.25, (1, count, 1)).astype(np.float32)
    shift = draw.uniform(-45.0, 45.0, (1, count, 1)).astype(np.float32)
    x = ((held(ppm)[weeks][..., None] - CENTRE_PPM) * scale + shift) / SCALE_PPM
    y = ((targets(ppm)[weeks] - CENTRE_PPM) * scale + shift) / SCALE_PPM
    known = ~np.isnan(y)
    known[:WARM_UP_WEEKS] = False
    return torch.from_numpy(x), torch.from_numpy(np.nan_to_num(y)), torch.from_numpy(known)


def forecast(model: Forecaster, ppm: Floats) -> Floats:
    """Returns forecasts in ppm at every week of one long stream: [N, horizons]."""
    x = torch.from_numpy((held(ppm) - CENTRE_PPM) / SCALE_PPM).reshape(-1, 1, 1)
    with torch.no_grad():
        y: Floats = model(x)[:, 0].numpy()
    return y * SCALE_PPM + CENTRE_PPM


def baselines(ppm: Floats) -> Mapping[str, Floats]:
    """Returns forecasts that need no network: [N, horizons] each."""
    filled = held(ppm)
    year_ago = np.full_like(filled, np.nan)
    year_ago[YEAR_WEEKS:] = filled[:-YEAR_WEEKS]
    season = np.full((len(ppm), len(HORIZONS_WEEKS)), np.nan, dtype=np.float32)
    for i, horizon in enumerate(HORIZONS_WEEKS):
        season[YEAR_WEEKS - horizon :, i] = filled[: len(ppm) - (YEAR_WEEKS - horizon)]
    return {
        "as last week": np.repeat(filled[:, None], len(HORIZONS_WEEKS), axis=1),
        "as a year ago": season,
        "as a year ago + that year's growth": season + (filled - year_ago)[:, None],
    }


def print_errors(forecasts: Mapping[str, Floats], ppm: Floats, test: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    """Prints root mean square errors in ppm, where the target is known and the first year is over."""
    wanted = targets(ppm)
    settled = np.arange(len(ppm)) >= YEAR_WEEKS
    print(
        f"\n{'RMSE, ppm':36s}"
        + "".join(f"{f'{part} +{h} wk':>14s}" for part in ("train", "test") for h in HORIZONS_WEEKS)
    )
    for name, values in forecasts.items():
        cells = []
        for part in (settled & ~test, settled & test):
            error = (values - wanted)[part]
            cells += [f"{rmse:14.3f}" for rmse in np.sqrt(np.nanmean(error.astype(np.float64) ** 2, axis=0))]
        print(f"{name:36s}" + "".join(cells))


def save(model: Forecaster, folder: Path) -> None:
    """Writes the bundle, replacing an existing one."""
    config = {
        "format": "cellkeeper-bundle/1",
        "name": "co2",
        "cell": "lstm",
        "input_size": 1,
        "hidden_size": HIDDEN_SIZE,
        "num_layers": 1,
        "input": {
            "kind": "features",
            "normalization": {"offset": [CENTRE_PPM], "scale": [SCALE_PPM]},
            "missing": {"policy": "hold", "value": CENTRE_PPM},
        },
        "head": [{"units": len(HORIZONS_WEEKS), "activation": "linear"}],
        "output": [{"op": "scale", "value": SCALE_PPM}, {"op": "offset", "value": CENTRE_PPM}],
        "feature_names": ["co2_ppm"],
        "feedback": [0],  # next week's prediction is next week's input
    }
    tensors = {name.replace("head.", "head.0."): value.detach().numpy() for name, value in model.named_parameters()}
    if folder.exists():
        shutil.rmtree(folder)
    bundle = write_bundle(folder, config, tensors)
    print(f"\nwrote {folder}, fingerprint {bundle.spec.fingerprint.hex()[:16]}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the CO2 forecaster and writes its bundle.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "bundle")
    parser.add_argument("--seed", type=int, default=1958)
    arguments = parser.parse_args()
    series = load_series()
    print(f"{len(series.ppm)} weeks, {np.isnan(series.ppm).sum()} missing; seed {arguments.seed}")
    torch.set_num_threads(1)  # the same sums on every machine
    test = series.weeks >= FIRST_TEST_WEEK
    model = train(series.ppm[~test], arguments.seed)
    print_errors({"forecaster": forecast(model, series.ppm), **baselines(series.ppm)}, series.ppm, test)
    save(model, arguments.out)


if __name__ == "__main__":
    main()
