"""What a run showed: for people, and for programs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .history import History
from .recovery import recovery_ms
from .run import Outcome


def summary(outcome: Outcome) -> dict[str, Any]:
    """The one line."""
    history, verdict = outcome.history, outcome.verdict
    steps = history.acknowledged_steps()
    losing = [fault for fault in history.faults if fault.loses]
    return {
        "seed": outcome.settings.seed,
        "store": outcome.settings.store,
        "fsync": outcome.fsync,
        "replicas": outcome.settings.replicas,
        "seconds": round(outcome.seconds, 1),
        "acknowledged_steps": steps,
        "steps_per_second": round(steps / outcome.seconds),
        "faults": faults_by_kind(outcome),
        "lost": verdict.count("lost"),
        "doubled": verdict.count("doubled"),
        "mismatched": verdict.count("mismatched"),
        "tail_losses": {
            "faults": len(losing),
            "replayed_steps": outcome.replayed_steps,
            "lost_and_told_steps": verdict.lost_and_told,
            "reports": verdict.reports,
            "untold": verdict.count("lost") if losing else 0,
        },
        "recovery_ms": recovery_ms(history),
        "violations": len(verdict.findings),
    }


def faults_by_kind(outcome: Outcome) -> dict[str, int]:
    """What the harness did, and what its clients did."""
    counted = Counter(fault.kind for fault in outcome.history.faults)
    return dict(sorted(counted.items())) | dict(sorted(outcome.own_faults.items()))


def table(outcome: Outcome) -> str:
    """For people."""
    line, verdict = summary(outcome), outcome.verdict
    words = [
        f"store {line['store']} {line['fsync']}, {line['replicas']} servers, seed {line['seed']}: "
        f"{line['acknowledged_steps']:,} steps acknowledged in {line['seconds']} s ({line['steps_per_second']:,}/s)",
        f"checked in {outcome.check_seconds:.1f} s: {verdict.lives:,} lives, {verdict.compared_rows:,} output rows and "
        f"{verdict.compared_states:,} states compared bitwise",
        "",
        f"{'fault':<24}{'times':>8}   {'next step, ms':>20}   {'all that waited, ms':>22}",
        f"{'':<24}{'':>8}   {'median':>10}{'worst':>10}   {'median':>11}{'worst':>11}",
    ]
    for kind, count in line["faults"].items():
        times = line["recovery_ms"].get(kind, {})
        cells = [times.get(name, "") for name in ("first_median", "first_worst", "all_median", "all_worst")]
        words.append(f"{kind:<24}{count:>8}   {cells[0]:>10}{cells[1]:>10}   {cells[2]:>11}{cells[3]:>11}")
    words += ["", f"errors that clients saw: {errors(outcome.history)}", ""]
    for kind in ("lost", "doubled", "mismatched", "gap", "leaked", "revived", "unexplained", "crash"):
        words.append(f"{kind:<12}{verdict.count(kind):>6}")
    return "\n".join(words)


def errors(history: History) -> str:
    counted = Counter(reason for reason, _ in history.errors())
    return ", ".join(f"{reason} {count}" for reason, count in counted.most_common())


def findings(outcome: Outcome, most: int = 20) -> str:
    """The violations, in words."""
    found = sorted(outcome.verdict.findings, key=lambda finding: finding.kind == "unexplained")
    lines = [f"{each.kind}: {each.session} {each.generation.hex()}: {each.words}" for each in found[:most]]
    if len(found) > most:
        lines.append(f"... and {len(found) - most} more")
    return "\n".join(lines)
