"""The picture: what each mistake costs, and both layers' vectors for the words of a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Any

import matplotlib as mpl

from .serving import Floats

SHOWN_UNITS = 48


def plot(path: Path, results: Mapping[str, Any], words: Sequence[str], h: Floats) -> None:
    """Draws the picture. h: every layer's vector after each of the words, [T, layers, units]."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # after choosing the backend

    layers = h.shape[1]
    figure = plt.figure(figsize=(9, 8))
    grid = figure.add_gridspec(1 + layers, 1, height_ratios=[1.5, *([1] * layers)])
    axis = figure.add_subplot(grid[0])
    names = [f"{way['name']}  ({way['shape']})" for way in results["ways"]]
    values = [exp(sum(way["loss"]) / len(way["loss"])) for way in results["ways"]]
    bars = axis.barh(names, values, color=["tab:green"] * 2 + ["tab:red"] * (len(values) - 2))
    axis.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3)
    axis.set_xscale("log")
    axis.margins(x=0.1)
    axis.invert_yaxis()
    axis.set_title("Perplexity of the same words, by how they are read")
    for layer in range(layers):
        axis = figure.add_subplot(grid[1 + layer])
        axis.imshow(h[:, layer, :SHOWN_UNITS].T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_ylabel(f"layer {layer + 1}, units")
        axis.set_yticks([])
        shown = words if layer == layers - 1 else []
        axis.set_xticks(range(len(shown)), list(shown), rotation=90, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=75)
    plt.close(figure)
