"""The table in markdown: medians over the rounds, spreads, and ratios within a round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from .case import Case
from .runner import Rounds

# for a scenario without a contender's figure, the closest other scenario
ELSEWHERE = {
    "group 64": "client 64",
    "group 256": "client 256",
    "frames 64": "client 64",
    "frames 256": "client 256",
    "cold 256": "client 256",
}
PEERS = {"Triton": ("triton unary", "triton stream"), "naive": ("naive redis",), "echo": ("echo",)}
HEADS = ["scenario", "model", "contender", "steps/s", "spread", "p50 ms", "p99 ms", "p99.9 ms"]


def table(cases: Sequence[Case], rounds: Rounds) -> str:
    heads = [*HEADS, *(f"of {name}" for name in PEERS), "beside"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|" + "---:|" * (len(heads) - 3)]
    for case in cases:
        figures = [one for one in rounds[case.key] if "error" not in one]
        if figures:
            lines.append("| " + " | ".join([*_own(case, figures), *_ratios(case, rounds), _beside(figures)]) + " |")
        else:
            lines.append(
                f"| {case.scenario} | {case.load.model} | {case.contender} | failed |" + " |" * (len(heads) - 4)
            )
    return "\n".join(lines)


def median(figures: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.median(float(one[name]) for one in figures)


def _own(case: Case, figures: list[dict[str, Any]]) -> list[str]:
    rates = [one["steps_per_second"] for one in figures]
    return [
        case.scenario,
        case.load.model,
        case.contender,
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        *(f"{median(figures, name):.2f}" for name in ("p50_ms", "p99_ms", "p999_ms")),
    ]


def _ratios(case: Case, rounds: Rounds) -> list[str]:
    return [ratio(case, names, rounds) for names in PEERS.values()]


def ratio(case: Case, peers: Sequence[str], rounds: Rounds) -> str:
    """Returns steps a second divided by the better peer's, round by round; "" if there is no such peer.

    Only for Cellkeeper's own figures; those of Triton's client are compared with Triton driven in the same way.
    """
    if not case.contender.startswith(("cellkeeper", "websocket", "kserve")) or case.of_capacity:
        return ""
    if case.contender.startswith("kserve"):
        peers = [f"triton {case.contender.split()[1]}"] if peers == PEERS["Triton"] else []
    others: list[list[float]] = []
    for scenario in (case.scenario, ELSEWHERE.get(case.scenario, "")):
        keys = [f"{scenario} | {case.load.model} | {peer}" for peer in peers]
        others = [[one.get("steps_per_second", 0.0) for one in rounds[key]] for key in keys if key in rounds]
        if others:
            break
    own = [one.get("steps_per_second", 0.0) for one in rounds[case.key]]
    best = [max(values) for values in zip(*others, strict=True)]
    pairs = [mine / other for mine, other in zip(own, best, strict=False) if other]
    return f"{statistics.median(pairs):.2f}" if pairs else ""


def _beside(figures: list[dict[str, Any]]) -> str:
    rate = median(figures, "beside_steps_per_second")
    return f"{rate:,.0f} steps/s" if rate else ""
