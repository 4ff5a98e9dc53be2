"""The table in markdown.

Steps a second and p50 are medians over the rounds. Higher percentiles are those of the messages of all rounds together,
and absent where too few messages were slower. Ratios are made round by round; "of Triton" means at the same number of
sessions.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from .case import Case
from .latencies import percentile_ms
from .runner import Rounds

# for a scenario without a contender's figure, the one with as many sessions at once
ELSEWHERE = {
    "group 64": "client 64",
    "group 256": "client 256",
    "frames 64": "client 128",
    "frames 256": "client 512",
    "cold 256": "client 512",
}
PEERS = {"Triton": ("triton unary", "triton stream"), "naive": ("naive redis",), "echo": ("echo",)}
HEADS = ["scenario", "model", "contender", "sessions", "steps/s", "spread", "p50 ms", "p99 ms", "p99.9 ms"]


def table(cases: Sequence[Case], rounds: Rounds) -> str:
    heads = [*HEADS, *(f"of {name}" for name in PEERS), "notes"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|" + "---:|" * (len(heads) - 3)]
    for case in cases:
        figures = [one for one in rounds[case.key] if "error" not in one]
        if figures:
            lines.append(
                "| " + " | ".join([*_own(case, figures), *_ratios(case, rounds), _notes(rounds[case.key])]) + " |"
            )
        else:
            lines.append(
                f"| {case.scenario} | {case.load.model} | {case.contender} | {case.load.sessions_at_once} | failed |"
                + " |" * (len(heads) - 5)
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
        str(case.load.sessions_at_once),
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        f"{median(figures, 'p50_ms'):.2f}",
        *(_percentile(figures, percent) for percent in (99.0, 99.9)),
    ]


def _ratios(case: Case, rounds: Rounds) -> list[str]:
    return [ratio(case, names, rounds) for names in PEERS.values()]


def ratio(case: Case, peers: Sequence[str], rounds: Rounds) -> str:
    """Returns steps a second divided by the better peer's, round by round; "" if there is no such peer.

    Only for Cellkeeper's own figures; those of Triton's client are compared with Triton driven in the same way.
    """
    if not case.contender.startswith(("cellkeeper", "websocket", "kserve")) or case.load.rate:
        return ""
    if case.contender.startswith("kserve"):
        peers = [f"triton {case.contender.split()[1]}"] if peers == PEERS["Triton"] else []
    keys = [f"{_scenario_of_peers(case, peers, rounds)} | {case.load.model} | {peer}" for peer in peers]
    others = [[one.get("steps_per_second", 0.0) for one in rounds[key]] for key in keys if key in rounds]
    own = [one.get("steps_per_second", 0.0) for one in rounds[case.key]]
    best = [max(values) for values in zip(*others, strict=True)]
    pairs = [mine / other for mine, other in zip(own, best, strict=False) if mine and other]
    return f"{statistics.median(pairs):.2f}" if pairs else ""


def keys_of_peers(case: Case) -> list[str]:
    """Returns the cases of other scenarios that this one's ratios need."""
    elsewhere = ELSEWHERE.get(case.scenario)
    peers = [peer for names in PEERS.values() for peer in names] if elsewhere else []
    return [f"{elsewhere} | {case.load.model} | {peer}" for peer in peers]


def _scenario_of_peers(case: Case, peers: Sequence[str], rounds: Rounds) -> str:
    here = any(f"{case.scenario} | {case.load.model} | {peer}" in rounds for peer in peers)
    return case.scenario if here else ELSEWHERE.get(case.scenario, "")


def _percentile(figures: list[dict[str, Any]], percent: float) -> str:
    value = percentile_ms([one["latencies"] for one in figures], percent)
    return "" if value is None else f"{value:.2f}"


def _notes(rounds: list[dict[str, Any]]) -> str:
    """Returns what the other columns do not say: a second load, answers that came late, rounds that failed."""
    figures = [one for one in rounds if "error" not in one]
    beside = median(figures, "beside_steps_per_second")
    late = sum(one["late"] for one in figures)
    failed = len(rounds) - len(figures)
    notes = [
        f"beside {beside:,.0f} steps/s" if beside else "",
        f"{late:,} of {sum(one['messages'] for one in figures):,} messages late" if late else "",
        f"{failed} of {len(rounds)} rounds failed" if failed else "",
    ]
    return "; ".join(note for note in notes if note)
