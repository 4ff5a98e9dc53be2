"""The results of a run, for people and for programs."""

from __future__ import annotations

from typing import Any

from .recovery import recovery_ms
from .run import Outcome

KINDS = (
    "lost",
    "doubled",
    "mismatched",
    "gap",
    "leaked",
    "revived",
    "overdue",
    "unexplained",
    "miscounted",
    "unreadable",
    "crash",
)
FSYNC = {"sqlite": "synchronous FULL", "redis-everysec": "appendfsync everysec"}


def summary(outcome: Outcome) -> dict[str, Any]:
    """Returns the content of the JSON line.

    faults: of processes, connections and the store. races: what clients do to each other.
    """
    settings, figures = outcome.settings, outcome.figures
    lost, losing = figures.replayed_steps + figures.lost_and_told, figures.losing_faults
    return {
        "seed": settings.seed,
        "store": settings.store,
        "replicas": settings.replicas,
        "workers": settings.workers,
        "rounds": figures.rounds,
        "seconds": round(figures.seconds, 1),
        "acknowledged_steps": figures.steps,
        "chunks": figures.chunks,
        "single_steps": figures.single_steps,
        "steps_per_second": round(figures.steps / figures.seconds),
        "faults_total": figures.faults.total(),
        "fault_kinds": len(figures.faults),
        "faults": dict(sorted(figures.faults.items())),
        "power_cuts": figures.power_cuts,
        "half_transactions": figures.half_transactions,
        "clients": settings.count_clients(),
        "races": dict(sorted(figures.races.items())),
        **{{"gap": "gaps", "crash": "crashes"}.get(kind, kind): figures.violations[kind] for kind in KINDS},
        "violations": figures.violations.total(),
        "losing_faults": losing,
        "lost_and_told": figures.lost_and_told,
        "replayed": figures.replayed_steps,
        "lost_steps_a_losing_fault": round(lost / losing, 1) if losing else 0.0,
        "reports_of_losses": figures.reports,
        "refused_starts": figures.refused_starts,
        "longest_silence_ms": figures.longest_silence_ms,
        "recovery_ms": recovery_ms(figures.recoveries),
    }


def table(outcome: Outcome) -> str:
    """Returns the results as a table for people."""
    line, figures = summary(outcome), outcome.figures
    words = [
        f"store {line['store']}, {FSYNC.get(line['store'], 'appendfsync always')}, {line['replicas']} servers, "
        f"{line['workers']} processes each, seed {line['seed']}: "
        f"{line['acknowledged_steps']:,} steps acknowledged in {line['seconds']} s ({line['steps_per_second']:,}/s), "
        f"in {line['chunks']:,} chunks, {line['single_steps']:,} of them single steps",
        f"{line['rounds']} rounds, checked in {figures.check_seconds:.1f} s: {figures.generations:,} generations, "
        f"{figures.compared_rows:,} output rows and {figures.compared_states:,} states compared bitwise",
        "",
        f"{'fault':<24}{'times':>8}   {'next step, ms':>20}   {'who waited, ms':>14}   {'all who waited, ms':>20}",
        f"{'':<24}{'':>8}   {'median':>10}{'worst':>10}   {'median':>14}   {'median':>10}{'worst':>10}",
    ]
    for kind, count in (line["faults"] | line["races"]).items():
        times = line["recovery_ms"].get(kind, {})
        first, waited = (times.get("first_median", ""), times.get("first_worst", "")), times.get("each_median", "")
        everyone = (times.get("all_median", ""), times.get("all_worst", ""))
        row = f"{kind:<24}{count:>8}   {first[0]:>10}{first[1]:>10}   {waited:>14}   {everyone[0]:>10}{everyone[1]:>10}"
        words.append(row.rstrip())
    words += ["", f"faults: {line['faults_total']} of {line['fault_kinds']} kinds"]
    if line["power_cuts"]:
        words += [f"power cuts: {line['power_cuts']}, {line['half_transactions']} of them within a transaction"]
    seen = ", ".join(f"{reason} {count}" for reason, count in figures.errors.most_common())
    words += [f"errors that clients saw: {seen}", ""]
    if line["losing_faults"]:
        words += [
            f"{line['losing_faults']} faults that may lose a tail: {line['replayed']} steps were replayed by clients, "
            f"{line['lost_and_told']} lost and reported",
            "",
        ]
    for kind in KINDS:
        words.append(f"{kind:<12}{figures.violations[kind]:>6}")
    return "\n".join(words)


def findings(outcome: Outcome, most: int = 20) -> str:
    """Returns the violations, in words."""
    found = sorted(outcome.last.verdict.findings, key=lambda finding: finding.kind == "unexplained")
    lines = [f"{each.kind}: {each.session} {each.generation.hex()}: {each.words}" for each in found[:most]]
    if len(found) > most:
        lines.append(f"... and {len(found) - most} more")
    return "\n".join(lines)
