"""Compares two sides measured in turns: medians of each, ratios round by round, and the table of both.

A p99 is that of all rounds' messages together, as a round of frames has too few of them; its ratio is of these two.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .latencies import percentile_ms
from .side import PARTS

Figures = dict[str, Any]  # of one round: see Side.measure
SIDES = ("earlier", "this")
PERCENTILE = "p99_ms"
FIGURES = ("steps_per_second", "p50_ms", PERCENTILE, *(f"{part}_cpu_us_per_step" for part in PARTS))
HEADS = [
    "store",
    "load",
    "steps/s",
    "its ratio, spread",
    "p50 ms",
    "p99 ms",
    *(f"{part} CPU us/step" for part in PARTS),
]


@dataclass(frozen=True, slots=True)
class Pair:
    """One load on one store, on both sides. rounds: the figures of each round, by side."""

    store: str
    load: str
    rounds: dict[str, list[Figures]] = field(default_factory=lambda: {side: [] for side in SIDES})

    @property
    def errors(self) -> list[str]:
        return [f"{side}: {one['error']}" for side in SIDES for one in self.rounds[side] if "error" in one]

    def median(self, side: str, name: str) -> float | None:
        """Returns the median over the rounds in which both sides have the figure; None if there are none."""
        pairs = self._pairs(name)
        return statistics.median(pair[SIDES.index(side)] for pair in pairs) if pairs else None

    def values(self, name: str) -> dict[str, float | None]:
        """Returns each side's figure over all rounds: a median, or a percentile; None if there is none."""
        if name != PERCENTILE:
            return {side: self.median(side, name) for side in SIDES}
        counts = {side: [one["latencies"] for one in self.rounds[side] if "error" not in one] for side in SIDES}
        return {side: percentile_ms(of_side, 99.0) for side, of_side in counts.items()}

    def ratio(self, name: str) -> float | None:
        """Returns this / earlier: the median of the rounds' ratios, or that of the percentiles."""
        if name != PERCENTILE:
            ratios = self.ratios(name)
            return statistics.median(ratios) if ratios else None
        earlier, this = (self.values(name)[side] for side in SIDES)
        return None if earlier is None or this is None else this / earlier

    def ratios(self, name: str) -> list[float]:
        """Returns this / earlier for each round that has both."""
        return [this / earlier for earlier, this in self._pairs(name) if earlier]

    def json(self) -> dict[str, Any]:
        summary: dict[str, Any] = {}
        for name in FIGURES:
            values, ratio = self.values(name), self.ratio(name)
            if ratio is not None:
                summary[name] = {**values, "ratio": ratio}
                summary[name] |= {"ratios": self.ratios(name)} if name != PERCENTILE else {}
        return {"store": self.store, "load": self.load, "summary": summary, "rounds": self.rounds}

    def _pairs(self, name: str) -> list[tuple[float, float]]:
        """Returns (earlier, this) for each round in which both sides have the figure."""
        rows = zip(*(self.rounds[side] for side in SIDES), strict=True)
        values = [(figure(earlier, name), figure(this, name)) for earlier, this in rows]
        return [(earlier, this) for earlier, this in values if earlier is not None and this is not None]


def figure(figures: Figures, name: str) -> float | None:
    """Returns a figure of one round; None if the round failed, or the store has no process."""
    part = name.removesuffix("_cpu_us_per_step")
    value = figures.get(name) if part == name else figures.get("cpu_us_per_step", {}).get(part)
    return None if value is None else float(value)


def order(round_number: int, load_number: int) -> tuple[str, str]:
    """Returns the order of the sides, which alternates with every load and round, so that it favours neither."""
    first, second = SIDES
    return (first, second) if (round_number + load_number) % 2 == 0 else (second, first)


def table(pairs: Sequence[Pair]) -> str:
    """Returns a row for each pair, whose cells hold earlier, this, and in parentheses the rounds' median ratio."""
    lines = ["| " + " | ".join(HEADS) + " |", "|---|---|" + "---:|" * (len(HEADS) - 2)]
    for pair in pairs:
        cells = [_cell(pair, name) for name in FIGURES]
        cells.insert(1, _spread(pair.ratios("steps_per_second")))
        lines.append(f"| {pair.store} | {pair.load} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(pair: Pair, name: str) -> str:
    values, ratio = pair.values(name), pair.ratio(name)
    if ratio is None:
        return "failed" if name == FIGURES[0] else ""
    texts = [_number(values[side] or 0.0) for side in SIDES]
    return f"{texts[0]} → {texts[1]} ({ratio:.2f})"


def _spread(ratios: Sequence[float]) -> str:
    return f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
