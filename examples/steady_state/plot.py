"""The picture: the four objectives side by side, and the two histograms that the server shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from .serving import CHANGE, NORM

PANELS = {"norm": "norm of the state", "rank": "effective rank", "latest": "latest symbol read by a probe"}
COLOURS = ("tab:red", "tab:orange", "tab:blue", "tab:green")
SERVED_COLOURS = {"collapsed": "tab:red", "steady": "tab:green"}


def plot(path: Path, results: Mapping[str, Any]) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # after choosing the backend

    figure = plt.figure(figsize=(11, 7))
    grid = figure.add_gridspec(2, 6)
    names = list(results["objectives"])
    for i, (column, title) in enumerate(PANELS.items()):
        axis = figure.add_subplot(grid[0, 2 * i : 2 * i + 2])
        for place, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
            values = [run[column] for run in results["objectives"][name]]
            axis.bar(place, sum(values) / len(values), color=colour, alpha=0.6)
            axis.plot([place] * len(values), values, "k.", markersize=4)
        axis.set_xticks(range(len(names)), [name.replace(" and ", " and\n") for name in names], rotation=35, fontsize=8)
        axis.set_title(title)
        if column == "latest":
            axis.axhline(1 / 8, color="grey", linestyle=":", label="chance")
            axis.set_ylim(0, 1)
            axis.legend()
    for i, name in enumerate((NORM, CHANGE)):
        axis = figure.add_subplot(grid[1, 3 * i : 3 * i + 3])
        for model, found in results["served"].items():
            bounds, counts = found[name]["upto"], found[name]["count"]
            share = [count / sum(counts) for count in counts]
            labels = [f"{bound:.0e}".replace("e-0", "e-").replace("e+0", "e") for bound in bounds] + ["more"]
            axis.bar(range(len(share)), share, color=SERVED_COLOURS[model], alpha=0.6, label=model)
        axis.set_xticks(range(0, len(labels), 2), labels[::2], rotation=45, fontsize=8)
        axis.set_title(f"{name} on /metrics")
        axis.set_ylabel("share of the samples")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)
