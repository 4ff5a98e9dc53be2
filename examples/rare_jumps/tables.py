"""The README's tables, from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from examples.report import table

Runs = Sequence[Mapping[str, float]]
COLUMNS = ("error on ordinary values", "error on jumps", "jumps found", "calls that were jumps")


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    variants = results["variants"]
    linear = [[*_names(v), *_cells(v["runs"])] for v in variants if v["head"] == "linear"]
    relu = [
        [*_names(v), f"{sum(run['constant'] for run in v['runs']):.0f} of {len(v['runs'])}", *_cells(v["runs"])]
        for v in variants
        if v["head"] == "relu"
    ]
    memory = [
        [f"trained from {trained}" if trained.startswith("zero") else f"trained with {trained}", read, *_cells(runs)]
        for trained, reads in results["memory"].items()
        for read, runs in reads.items()
    ]
    served = results["served"]
    return {
        "linear": table(["target", "loss", *COLUMNS], linear),
        "relu": table(["target", "loss", "dead", *COLUMNS], relu),
        "memory": table(["", "read", *COLUMNS], memory),
        "served": table(
            ["time steps", *COLUMNS, "same decision as PyTorch", "difference from PyTorch (median)"],
            [
                [
                    f"{served['steps']:,}",
                    *_cells([served]),
                    f"{served['same decision']:.2%}",
                    f"{served['apart']:.0e}",
                ]
            ],
        ),
    }


def _names(variant: Mapping[str, Any]) -> list[str]:
    return ["**two parts**", "both"] if variant["scale"] == "two parts" else [variant["scale"], variant["loss"]]


def _cells(runs: Runs) -> list[str]:
    """Means over the seeds; the lowest and the highest of the shares."""
    cells = [f"{_mean([run['ordinary'] for run in runs]):.2f}", f"{_mean([run['jumps'] for run in runs]):.1f}"]
    for name in ("recall", "precision"):
        shares = [run[name] for run in runs]
        spread = f" ({min(shares):.0%} to {max(shares):.0%})" if max(shares) - min(shares) >= 0.005 else ""
        cells.append(f"{_mean(shares):.0%}{spread}")
    return cells


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
