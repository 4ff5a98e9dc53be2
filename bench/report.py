"""Draws the figures of a run: `python -m bench.report out/bench.json --out docs/img`."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from .latencies import percentile_ms

COLOURS = {
    "cellkeeper": "#1b6ca8",
    "websocket": "#0b3d62",
    "kserve": "#5fa8d3",
    "triton": "#76b900",
    "naive": "#b0713a",
    "echo": "#bbbbbb",
}
CEILING = "#dddddd"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    options = parser.parse_args()
    cases = [case for case in json.loads(options.results.read_text())["cases"] if good(case)]
    options.out.mkdir(parents=True, exist_ok=True)
    scenarios = dict.fromkeys((case["scenario"], case["load"]["model"]) for case in cases)
    for scenario, model in scenarios:
        chosen = [case for case in cases if (case["scenario"], case["load"]["model"]) == (scenario, model)]
        if len(chosen) > 1:
            name = f"bench-{scenario}-{model}".translate({ord(" "): "-", ord("/"): "-", ord("%"): None})
            bars(chosen, f"{scenario}, LSTM {model}", options.out / f"{name}.png")
    curves(cases, options.out / "bench-latency.png")


def good(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rounds with figures."""
    return [one for one in case["rounds"] if "error" not in one]


def median(case: dict[str, Any], name: str) -> float:
    return statistics.median(float(one[name]) for one in good(case))


def p99_ms(case: dict[str, Any]) -> float | None:
    """Returns the p99 of all rounds' messages; None if there are too few, or the file is from before they were kept."""
    return percentile_ms([one.get("latencies", {}) for one in good(case)], 99.0)


def colour(contender: str) -> str:
    return COLOURS.get(contender.split()[0], CEILING)


def bars(cases: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draws steps a second with the rounds' spread, on a logarithmic scale if ceilings would flatten the rest.

    For open loops, whose rates were given, it draws the p50 in milliseconds.
    """
    is_open = cases[0]["scenario"].startswith("open ")
    field, label = ("p50_ms", "p50, ms") if is_open else ("steps_per_second", "steps a second")
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.38 * len(cases)), layout="constrained")
    names = [case["contender"] for case in cases][::-1]
    values = [median(case, field) for case in cases][::-1]
    rounds = [[float(one[field]) for one in good(case)] for case in cases][::-1]
    low = [value - min(each) for value, each in zip(values, rounds, strict=True)]
    high = [max(each) - value for value, each in zip(values, rounds, strict=True)]
    axes.barh(names, values, color=[colour(name) for name in names], xerr=(low, high), error_kw={"lw": 1})
    if max(values) > 20 * min(values):
        axes.set_xscale("log")
    for at, value in enumerate(values):
        axes.annotate(f" {value:,.0f}" if value >= 100 else f" {value:.1f}", (value + high[at], at), va="center")
    axes.margins(x=0.15)
    axes.set_xlabel(label)
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def curves(cases: list[dict[str, Any]], path: Path) -> None:
    """Draws closed loops with more and more sessions: the time of a step over the steps a second."""
    points: dict[str, list[tuple[float, float]]] = {}
    for case in cases:
        if case["scenario"].startswith("client") and case["load"]["model"] == "2x128":
            p99 = p99_ms(case)
            if p99 is not None:
                points.setdefault(case["contender"], []).append((median(case, "steps_per_second"), p99))
    lines = {name: line for name, line in points.items() if len(line) > 2}
    if not lines:
        return
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    styles = iter(["-", "--", ":", "-.", (0, (1, 3))] * len(lines))
    for name, line in lines.items():
        axes.plot(*zip(*line, strict=True), marker="o", color=colour(name), linestyle=next(styles), label=name)
    axes.set(xlabel="steps a second, 1 to 1,024 sessions", ylabel="p99, ms", title="Closed loops, LSTM 2x128")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=140)
    plt.close(figure)


if __name__ == "__main__":
    main()
