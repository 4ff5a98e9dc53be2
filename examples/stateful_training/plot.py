"""The picture: what a model knows, by how much it has read since its last reset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

COLOURS = ("tab:blue", "tab:green", "tab:red", "tab:purple")
CLOSER_FROM = 8  # the second panel's first context


def plot(path: Path, results: Mapping[str, Any]) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # after choosing the backend

    contexts = results["contexts"]
    figure, (whole, closer) = plt.subplots(1, 2, figsize=(11, 4.5))
    first = contexts.index(CLOSER_FROM)
    for (way, runs), colour in zip(results["ways"].items(), COLOURS, strict=True):
        curves = [run["by_context"] for run in runs]
        middle = [sum(values) / len(values) for values in zip(*curves, strict=True)]
        for axis, start in ((whole, 0), (closer, first)):
            axis.plot(contexts[start:], middle[start:], color=colour, marker="o", markersize=4, label=way)
        for curve in curves:
            whole.plot(contexts, curve, color=colour, linewidth=0.6, alpha=0.5)
    for axis in (whole, closer):
        axis.axvline(results["window"], color="grey", linewidth=1, linestyle=":", label="length of a training window")
        axis.set_xscale("log", base=2)
        axis.set_xlabel("characters read since the reset, at most")
        axis.grid(alpha=0.3)
    whole.set_xticks(contexts, [str(context) for context in contexts])
    closer.set_xticks(contexts[first:], [str(context) for context in contexts[first:]])
    whole.set_ylabel("bits per character, held-out text")
    whole.set_title("after a reset (thin: each seed)")
    closer.set_title("the same, closer (means)")
    whole.legend(title="trained with")
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)
