"""Writes counterexamples to a file: the shortest histories that show the violations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .history import Burst, History, Operation
from .report import summary
from .run import Outcome
from .verdict import Finding

MOST_EVENTS = 2000


def write_counterexamples(outcome: Outcome, folder: Path) -> Path:
    """Writes, for each kind of violation, the shortest history that shows one: all that is known of that generation."""
    folder.mkdir(parents=True, exist_ok=True)
    history, verdict = outcome.last.history, outcome.last.verdict
    shortest: dict[str, Finding] = {}
    for finding in sorted(verdict.findings, key=lambda finding: len(involved(history, finding)[0])):
        shortest.setdefault(finding.kind, finding)
    path = folder / f"chaos-{outcome.settings.seed}.json"
    found = {
        "summary": summary(outcome),
        "findings": [_finding(finding) for finding in verdict.findings[:100]],
        "histories": [_events(history, finding, outcome.last.started) for finding in shortest.values()],
    }
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def _finding(finding: Finding) -> dict[str, str]:
    return {
        "kind": finding.kind,
        "session": finding.session,
        "generation": finding.generation.hex(),
        "words": finding.words,
    }


def _events(history: History, finding: Finding, started: float) -> dict[str, Any]:
    """Returns all that is known of the finding's generation, ordered by time, with the faults while it existed."""
    bursts, operations = involved(history, finding)
    events: list[dict[str, Any]] = [
        *(_steps(burst, started) for burst in bursts),
        *(_operation(operation, started) for operation in operations),
    ]
    for read in history.final_reads:
        if read.session == finding.session:
            position = read.position.pack().hex() if read.position is not None else None
            events.append(
                {"at": round(read.at - started, 4), "what": "final read", "by": read.replica, "position": position}
            )
    events.sort(key=lambda event: float(event["at"]))
    dropped = max(0, len(events) - MOST_EVENTS)
    first, last = (events[dropped]["at"], events[-1]["at"]) if events else (0.0, 0.0)
    faults = [
        {"kind": fault.kind, "target": fault.target, "began": round(began, 4), "ended": round(fault.ended - started, 4)}
        for fault in history.faults
        if first - 5 <= (began := fault.began - started) <= last
    ]
    return {"finding": _finding(finding), "events_left_out": dropped, "events": events[dropped:], "faults": faults}


def _steps(burst: Burst, started: float) -> dict[str, Any]:
    return {
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


def _operation(operation: Operation, started: float) -> dict[str, Any]:
    return {
        "at": round(operation.sent_at - started, 4),
        "what": operation.kind,
        "by": operation.sender,
        "names": operation.generation.hex(),
        "expects": operation.expect.pack().hex() if operation.expect is not None else None,
        "result": operation.result.pack().hex() if operation.result is not None else None,
        "created": operation.created,
        "answered_at": round(operation.at - started, 4) if operation.at else None,
        "error": operation.error,
        "error_text": operation.error_text,
    }


def involved(history: History, finding: Finding) -> tuple[list[Burst], list[Operation]]:
    """Returns the known operations on the finding's generation."""
    bursts = [
        burst
        for burst in history.bursts.get(finding.session, ())
        if not finding.generation or burst.start.generation == finding.generation
    ]
    return bursts, list(history.operations.get(finding.session, ()))
