"""The README's tables, from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from examples.report import table

Runs = Sequence[Mapping[str, float]]
ERRORS = ("error on ordinary values", "error on jumps")
COLUMNS = (*ERRORS, "jumps found", "calls that were jumps")
RANKED = "jumps among the highest"
TRAININGS = {"zero state": "windows from zero state", "carried state": "windows in order, state carried"}
READS = {"windowed": "a window of 22 steps", "carried": "the state carried"}


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    variants = results["variants"]
    linear = [[*_names(v), *_cells(v["runs"]), _ranked(v["runs"])] for v in variants if v["head"] == "linear"]
    relu = [
        [*_names(v), f"{sum(run['constant'] for run in v['runs']):.0f} of {len(v['runs'])}", *_cells(v["runs"])]
        for v in variants
        if v["head"] == "relu"
    ]
    decisions = [[name, *_cells(runs)] for name, runs in results["decisions"].items()]
    memory = [
        [TRAININGS[trained], READS[read], *_cells(runs), _ranked(runs)]
        for trained, reads in results["memory"].items()
        for read, runs in reads.items()
    ]
    served = results["served"]
    agree = [
        [f"decisions of {served['steps']:,} time steps, state carried", f"{served['same decision']:.1%} the same"],
        ["values of the same, largest relative difference", f"{served['apart']:.0e}"],
        [f"values of {served['windows']} windows, largest relative difference", f"{served['windows apart']:.0e}"],
    ]
    return {
        "linear": table(["target", "loss", *COLUMNS, RANKED], linear),
        "relu": table(["target", "loss", "dead", *COLUMNS], relu),
        "decisions": table(["two parts, read as", *COLUMNS], decisions),
        "memory": table(["trained on", "read from", *COLUMNS, RANKED], memory),
        "served": table([*COLUMNS], [_cells([served])]),
        "agree": table(["Cellkeeper over gRPC, beside PyTorch", ""], agree),
    }


def _names(variant: Mapping[str, Any]) -> list[str]:
    return ["**two parts**", "both"] if variant["scale"] == "two parts" else [variant["scale"], variant["loss"]]


def _cells(runs: Runs) -> list[str]:
    """Returns means over the seeds, and the lowest and highest shares."""
    errors = [f"{_mean([run['ordinary'] for run in runs]):.2f}", f"{_mean([run['jumps'] for run in runs]):.1f}"]
    return [*errors, *(_share([run[name] for run in runs]) for name in ("recall", "precision"))]


def _ranked(runs: Runs) -> str:
    return _share([run["ranked"] for run in runs])


def _share(values: Sequence[float]) -> str:
    spread = f" ({min(values):.0%} to {max(values):.0%})" if max(values) - min(values) >= 0.005 else ""
    return f"{_mean(values):.0%}{spread}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
