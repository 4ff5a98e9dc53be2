"""The README's tables, from the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from examples.report import table

from .serving import CHANGE, NORM, share_below

SMALL_NORM, SMALL_CHANGE = 0.1, 0.1
LEAST_NORM = 0.01  # of a state, for the share by which it moves to be meaningful


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    rows = [
        [
            name,
            *(_figures(runs, column) for column in ("weights", "norm", "rank")),
            *(_shares(_there(runs), column) for column in ("moved by news", "moved by nothing")),
            *(_shares(runs, column) for column in ("latest", "before")),
        ]
        for name, runs in results["objectives"].items()
    ]
    served = [
        [
            f"`{model}`",
            f"{found['latest']:.0%}",
            f"{sum(found[NORM]['count']):.0f}",
            f"{share_below(found[NORM], SMALL_NORM):.0%}",
            f"{share_below(found[CHANGE], SMALL_CHANGE):.0%}",
        ]
        for model, found in results["served"].items()
    ]
    return {
        "states": table(
            [
                *("trained for", "norm of U", "norm of the state", "effective rank"),
                *("moved by news", "moved without", "latest symbol read", "the one before"),
            ],
            rows,
        ),
        "served": table(
            [
                *("model", "latest symbol read by clients", "samples"),
                f"`{NORM}` at most {SMALL_NORM}",
                f"`{CHANGE}` at most {SMALL_CHANGE}",
            ],
            served,
        ),
    }


def _there(runs: Sequence[Mapping[str, float]]) -> Sequence[Mapping[str, float]]:
    """Returns the runs whose state is not negligible: a share of nothing means nothing."""
    return [run for run in runs if run["norm"] >= LEAST_NORM]


def _figures(runs: Sequence[Mapping[str, float]], name: str) -> str:
    values = [run[name] for run in runs]
    return f"{sum(values) / len(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _shares(runs: Sequence[Mapping[str, float]], name: str) -> str:
    values = [run[name] for run in runs]
    return f"{sum(values) / len(values):.0%} ({min(values):.0%} to {max(values):.0%})"
