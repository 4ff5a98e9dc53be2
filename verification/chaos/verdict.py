"""The result of a check: what was found, and how much was checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Finding(NamedTuple):
    """One violation: which invariant, where, and in words."""

    kind: str
    session: str
    generation: bytes
    words: str


@dataclass
class Verdict:
    """The result of a check.

    findings: empty if all is well. compared_rows: output rows that were compared. lost_and_told: acknowledged steps
    that the store lost and whose clients were told. reports: errors that only the store's loss explains.
    """

    findings: list[Finding] = field(default_factory=list)
    compared_rows: int = 0
    compared_states: int = 0
    generations: int = 0
    lost_and_told: int = 0
    reports: int = 0

    def found(self, kind: str, session: str, generation: bytes, words: str) -> None:
        self.findings.append(Finding(kind, session, generation, words))

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)
