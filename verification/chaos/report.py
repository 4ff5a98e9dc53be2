"""What a run showed: for people, and for programs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .history import History
from .recovery import longest_silence_ms, recovery_ms
from .round import Outcome

KINDS = ("lost", "doubled", "mismatched", "gap", "leaked", "revived", "unexplained", "unreadable", "crash")
FSYNC = {"sqlite": "synchronous FULL", "redis-everysec": "appendfsync everysec"}


def summary(outcome: Outcome) -> dict[str, Any]:
    """The one line. faults: of processes, connections and the store; races: what clients do among themselves."""
    history, verdict = outcome.history, outcome.verdict
    steps, (chunks, singles) = history.acknowledged_steps(), history.acknowledged_chunks()
    faults = Counter(fault.kind for fault in history.faults)
    losing = sum(fault.loses for fault in history.faults)
    lost = outcome.replayed_steps + verdict.lost_and_told
    return {
        "seed": outcome.settings.seed,
        "store": outcome.settings.store,
        "replicas": outcome.settings.replicas,
        "workers": outcome.settings.workers,
        "seconds": round(outcome.seconds, 1),
        "acknowledged_steps": steps,
        "chunks": chunks,
        "single_steps": singles,
        "steps_per_second": round(steps / outcome.seconds),
        "faults_total": faults.total(),
        "fault_kinds": len(faults),
        "faults": dict(sorted(faults.items())),
        "power_cuts": len(history.power_cuts),
        "half_transactions": sum(cut.in_transaction for cut in history.power_cuts),
        "clients": outcome.settings.count_clients(),
        "races": dict(sorted(outcome.races.items())),
        **{{"gap": "gaps", "crash": "crashes"}.get(kind, kind): verdict.count(kind) for kind in KINDS},
        "violations": len(verdict.findings),
        "losing_faults": losing,
        "lost_and_told": verdict.lost_and_told,
        "replayed": outcome.replayed_steps,
        "lost_steps_a_losing_fault": round(lost / losing, 1) if losing else 0.0,
        "reports_of_losses": verdict.reports,
        "refused_starts": len(history.refused_starts),
        "longest_silence_ms": longest_silence_ms(history, outcome.started, outcome.started + outcome.seconds),
        "recovery_ms": recovery_ms(history),
    }


def table(outcome: Outcome) -> str:
    """For people."""
    line, verdict = summary(outcome), outcome.verdict
    words = [
        f"store {line['store']}, {FSYNC.get(line['store'], 'appendfsync always')}, {line['replicas']} servers, "
        f"{line['workers']} processes each, seed {line['seed']}: "
        f"{line['acknowledged_steps']:,} steps acknowledged in {line['seconds']} s ({line['steps_per_second']:,}/s), "
        f"in {line['chunks']:,} chunks, {line['single_steps']:,} of them single steps",
        f"checked in {outcome.check_seconds:.1f} s: {verdict.lives:,} lives, {verdict.compared_rows:,} output rows and "
        f"{verdict.compared_states:,} states compared bitwise",
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
    words += [f"errors that clients saw: {errors(outcome.history)}", ""]
    if line["losing_faults"]:
        words += [
            f"{line['losing_faults']} faults that may lose a tail: {line['replayed']} steps were replayed by clients, "
            f"{line['lost_and_told']} lost and told",
            "",
        ]
    for kind in KINDS:
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
