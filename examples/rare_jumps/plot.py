"""The picture: what each variant finds and what it costs, and a served stream."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

MARKERS = {"MSE": "o", "MAE": "s", "Huber": "^", "two parts": "*"}
COLOURS = {
    "raw": "tab:gray",
    "min-max": "tab:brown",
    "standardised": "tab:orange",
    "log1p": "tab:blue",
    "asinh": "tab:cyan",
    "two parts": "tab:red",
}


def plot(path: Path, results: Mapping[str, Any]) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # after choosing the backend

    figure, (scatter, stream) = plt.subplots(2, 1, figsize=(9, 8.5), height_ratios=(1.2, 1))
    for variant in results["variants"]:
        if variant["head"] != "linear":
            continue
        runs = variant["runs"]
        label = variant["scale"] if variant["loss"] == "two parts" else f"{variant['scale']}, {variant['loss']}"
        scatter.plot(
            [run["ordinary"] for run in runs],
            [run["jumps"] for run in runs],
            linestyle="none",
            marker=MARKERS[variant["loss"]],
            markersize=13 if variant["loss"] == "two parts" else 7,
            color=COLOURS[variant["scale"]],
            alpha=0.8,
            label=label,
        )
    scatter.set_xlabel("mean absolute error on ordinary values")
    scatter.set_ylabel("mean absolute error on jumps")
    scatter.set_title("22-step windows, linear head: each point a seed; best is bottom left")
    scatter.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    scatter.grid(alpha=0.3)
    target, odds, ordinary, size = np.array(results["shown"]).T
    predicted = np.where(odds >= 1, size, ordinary)
    stream.plot(target, color="black", linewidth=1, label="target")
    stream.plot(predicted, color="tab:red", linewidth=1, linestyle="--", label="served: the likelier of both parts")
    stream.plot(odds / (1 + odds) * 20, color="tab:blue", linewidth=0.8, alpha=0.7, label="served: probability x 20")
    stream.set_xlabel("time step")
    stream.set_title("A stream through Cellkeeper, in the target's units")
    stream.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)
