"""The demo's picture: the series, its forecasts, and when the server was killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from .series import Floats, Series

HORIZON_WEEKS, HORIZON_COLUMN = 13, 2
SHOWN_WEEKS = 260
SETTLING_WEEKS = 52  # until it has seen a year, the forecaster only guesses


def plot(path: Path, series: Series, forecasts: Floats, kill_weeks: Sequence[int]) -> None:
    """Writes a PNG. forecasts: [N, 3], at each week. kill_weeks: indices of weeks."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # after choosing the backend

    forecasts = np.where(np.arange(len(forecasts))[:, None] < SETTLING_WEEKS, np.nan, forecasts)
    due = series.weeks + np.timedelta64(7 * HORIZON_WEEKS, "D")
    figure, axes = plt.subplots(1 + len(kill_weeks), 1, figsize=(12, 4 + 3 * len(kill_weeks)))
    panels: Any = np.atleast_1d(axes)
    spans = [slice(0, len(series.weeks))]
    spans += [slice(max(0, week - SHOWN_WEEKS // 2), week + SHOWN_WEEKS // 2) for week in kill_weeks]
    for axis, span in zip(panels, spans, strict=True):
        _panel(axis, series.weeks[span], series.ppm[span], due[span], forecasts[span, HORIZON_COLUMN])
        for week in kill_weeks:
            if span.start <= week < span.stop:
                axis.axvline(series.weeks[week], color="tab:red", linewidth=1, label="server killed")
    handles, labels = panels[0].get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    panels[0].legend(known.values(), known.keys(), loc="upper left")
    panels[0].set_title("CO2 at Mauna Loa, streamed week by week through a server that was killed on the way")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _panel(axis: Any, weeks: NDArray[np.datetime64], ppm: Floats, due: NDArray[np.datetime64], made: Floats) -> None:
    axis.plot(weeks, ppm, color="black", linewidth=1.2, label="measured")
    axis.plot(due, made, color="tab:blue", linewidth=0.9, alpha=0.9, label=f"forecast {HORIZON_WEEKS} weeks before")
    axis.set_ylabel("ppm")
    axis.grid(alpha=0.3)
