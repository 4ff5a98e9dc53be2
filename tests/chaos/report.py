"""What a run showed: for people, for programs, and as evidence of a violation."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from .checker import Finding, involved
from .excuses import REPORTS
from .history import Fault, History
from .run import Outcome

TIMED = ("server_kill", "redis_kill", "failover", "failover_split", "server_pause", "redis_pause")
MOST_EVENTS = 2000


def summary(outcome: Outcome) -> dict[str, Any]:
    """The one line."""
    history, verdict = outcome.history, outcome.verdict
    steps = history.acknowledged_steps()
    losing = [fault for fault in history.faults if fault.loses]
    reports = sum(
        event.error in REPORTS
        for events in (*history.bursts.values(), *history.deeds.values())
        for event in events
        if not getattr(event, "late", False)
    )
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
            "reports": reports if losing else 0,
            "untold": verdict.count("lost") if losing else 0,
        },
        "recovery_ms": recovery_ms(history),
        "violations": len(verdict.findings),
    }


def faults_by_kind(outcome: Outcome) -> dict[str, int]:
    """What the harness did, and what its clients did."""
    counted = Counter(fault.kind for fault in outcome.history.faults)
    return dict(sorted(counted.items())) | dict(sorted(outcome.own_faults.items()))


def recovery_ms(history: History) -> dict[str, dict[str, int]]:
    """By kind of fault: milliseconds from its beginning until the next acknowledged step of any session ("first"), and
    of the last of those sessions that had a step on the way at that moment ("all")."""
    waits = _waits(history)
    firsts: dict[str, list[float]] = defaultdict(list)
    alls: dict[str, list[float]] = defaultdict(list)
    for fault in history.faults:
        if fault.kind in TIMED:
            first, everyone = _recovery(fault, waits)
            if first is not None:
                firsts[fault.kind].append(first)
            if everyone is not None:
                alls[fault.kind].append(everyone)
    found: dict[str, dict[str, int]] = {}
    for kind in TIMED:
        if firsts[kind]:
            found[kind] = {"first_median": _ms(median(firsts[kind])), "first_worst": _ms(max(firsts[kind]))}
            if alls[kind]:
                found[kind] |= {"all_median": _ms(median(alls[kind])), "all_worst": _ms(max(alls[kind]))}
    return found


def _waits(history: History) -> list[list[tuple[float, float]]]:
    """By session: when each chunk was sent (or the answer before it came) and when it was answered."""
    found = []
    for bursts in history.bursts.values():
        waits = []
        for burst in bursts:
            since = burst.sent_at
            for ack in burst.acks:
                waits.append((since, ack.at))
                since = ack.at
        found.append(sorted(waits, key=lambda wait: wait[1]))
    return found


def _recovery(fault: Fault, waits: list[list[tuple[float, float]]]) -> tuple[float | None, float | None]:
    began, firsts, spanning = fault.began, [], []
    for session in waits:
        low, high = 0, len(session)
        while low < high:  # the first answer after the fault began
            middle = (low + high) // 2
            low, high = (middle + 1, high) if session[middle][1] <= began else (low, middle)
        if low < len(session):
            since, at = session[low]
            firsts.append(at - began)
            if since <= began:
                spanning.append(at - began)
    return min(firsts, default=None), max(spanning, default=None)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


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
    counted = Counter(
        event.error for events in (*history.bursts.values(), *history.deeds.values()) for event in events if event.error
    )
    return ", ".join(f"{reason} {count}" for reason, count in counted.most_common())


def findings(outcome: Outcome, most: int = 20) -> str:
    """The violations, in words."""
    found = sorted(outcome.verdict.findings, key=lambda finding: finding.kind == "unexplained")
    lines = [f"{each.kind}: {each.session} {each.generation.hex()}: {each.words}" for each in found[:most]]
    if len(found) > most:
        lines.append(f"... and {len(found) - most} more")
    return "\n".join(lines)


def write_evidence(outcome: Outcome, folder: Path) -> Path:
    """For each kind of violation the shortest history that shows one: all that is known of one life."""
    folder.mkdir(parents=True, exist_ok=True)
    history = outcome.history
    shortest: dict[str, Finding] = {}
    for finding in sorted(outcome.verdict.findings, key=lambda finding: len(involved(history, finding)[0])):
        shortest.setdefault(finding.kind, finding)
    path = folder / f"chaos-{outcome.settings.seed}.json"
    evidence = {
        "summary": summary(outcome),
        "findings": [_finding(finding) for finding in outcome.verdict.findings[:100]],
        "histories": [_events(history, finding, outcome.started) for finding in shortest.values()],
    }
    path.write_text(json.dumps(evidence, indent=1) + "\n")
    return path


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "kind": finding.kind,
        "session": finding.session,
        "generation": finding.generation.hex(),
        "words": finding.words,
    }


def _events(history: History, finding: Finding, started: float) -> dict[str, Any]:
    """All that is known of the finding's life, in the order of time; faults only while it lived."""
    bursts, deeds = involved(history, finding)
    events: list[dict[str, Any]] = []
    for burst in bursts:
        events.append(
            {
                "at": round(burst.sent_at - started, 4),
                "what": "late copy" if burst.late else "steps",
                "by": burst.sender,
                "position": burst.start.pack().hex(),
                "step": burst.start.step,
                "inputs": burst.inputs.tolist(),
                "acks": [
                    {
                        "at": round(ack.at - started, 4),
                        "rows": ack.rows,
                        "position": ack.position.pack().hex(),
                        "applied": ack.applied,
                        "outputs": {name: value.tobytes().hex() for name, value in ack.outputs.items()},
                    }
                    for ack in burst.acks
                ],
                "error": burst.error,
                "error_text": burst.error_text,
                "error_at": round(burst.error_at - started, 4) if burst.error else None,
            }
        )
    for deed in deeds:
        events.append(
            {
                "at": round(deed.sent_at - started, 4),
                "what": deed.kind,
                "by": deed.sender,
                "names": deed.generation.hex(),
                "result": deed.result.pack().hex() if deed.result is not None else None,
                "created": deed.created,
                "answered_at": round(deed.at - started, 4) if deed.at else None,
                "error": deed.error,
                "error_text": deed.error_text,
            }
        )
    for rest in history.rests:
        if rest.session == finding.session:
            position = rest.position.pack().hex() if rest.position is not None else None
            events.append({"at": round(rest.at - started, 4), "what": "rest", "by": rest.replica, "position": position})
    events.sort(key=lambda event: float(event["at"]))
    dropped = max(0, len(events) - MOST_EVENTS)
    first, last = (events[dropped]["at"], events[-1]["at"]) if events else (0.0, 0.0)
    faults = [
        {"kind": fault.kind, "target": fault.target, "began": round(began, 4), "ended": round(fault.ended - started, 4)}
        for fault in history.faults
        if first - 5 <= (began := fault.began - started) <= last
    ]
    return {"finding": _finding(finding), "events_left_out": dropped, "events": events[dropped:], "faults": faults}
