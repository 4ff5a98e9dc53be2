"""One row of the table: a contender under a load."""

from __future__ import annotations

from dataclasses import dataclass

from .load import Load


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    scenario: cases with the same scenario and model are compared. beside: a second process's load at the same time.
    """

    scenario: str
    contender: str
    load: Load
    beside: Load | None = None

    @property
    def key(self) -> str:
        return f"{self.scenario} | {self.load.model} | {self.contender}"
