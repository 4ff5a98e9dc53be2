"""The figures of a run. The history of a round is dropped once it is judged; these figures remain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from .recovery import Recovery, longest_silence_ms, recoveries
from .round import Round


@dataclass
class Figures:
    """Sums over all rounds; for the silences, the maximum. recoveries: one for each fault, by kind."""

    rounds: int = 0
    seconds: float = 0.0
    check_seconds: float = 0.0
    steps: int = 0
    chunks: int = 0
    single_steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    losing_faults: int = 0
    power_cuts: int = 0
    half_transactions: int = 0
    races: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    generations: int = 0
    compared_rows: int = 0
    compared_states: int = 0
    lost_and_told: int = 0
    replayed_steps: int = 0
    reports: int = 0
    refused_starts: int = 0
    longest_silence_ms: int = 0
    recoveries: dict[str, list[Recovery]] = field(default_factory=dict)

    def add(self, played: Round) -> None:
        history, verdict = played.history, played.verdict
        chunks, singles = history.acknowledged_chunks()
        self.rounds += 1
        self.seconds += played.seconds
        self.check_seconds += played.check_seconds
        self.steps += history.acknowledged_steps()
        self.chunks += chunks
        self.single_steps += singles
        self.faults.update(fault.kind for fault in history.faults)
        self.losing_faults += sum(fault.loses for fault in history.faults)
        self.power_cuts += len(history.power_cuts)
        self.half_transactions += sum(cut.in_transaction for cut in history.power_cuts)
        self.races.update(played.races)
        self.errors.update(reason for reason, _ in history.errors())
        self.violations.update(finding.kind for finding in verdict.findings)
        self.generations += verdict.generations
        self.compared_rows += verdict.compared_rows
        self.compared_states += verdict.compared_states
        self.lost_and_told += verdict.lost_and_told
        self.replayed_steps += played.replayed_steps
        self.reports += verdict.reports
        self.refused_starts += len(history.refused_starts)
        silence_ms = longest_silence_ms(history, played.started, played.started + played.seconds)
        self.longest_silence_ms = max(self.longest_silence_ms, silence_ms)
        for kind, found in recoveries(history).items():
            self.recoveries.setdefault(kind, []).extend(found)
