"""The settings of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    every_s: mean seconds between two faults. only: kinds of faults; empty: all. clients: official ones with `sessions`
    sessions each; one more has `singles` sessions and steps them one by one. groups: official ones that step `fleet`
    sessions of a model as a group. fleets: raw clients that step `fleet` sessions of a model together. direct_clients:
    raw clients of one session that step only after a power cut. workers: processes of each server.
    """

    seconds: float
    seed: int
    store: str
    replicas: int = 2
    every_s: float = 0.35
    only: frozenset[str] = frozenset()
    clients: int = 3
    sessions: int = 30
    singles: int = 60
    groups: int = 2
    fleets: int = 3
    fleet: int = 64
    rough: int = 10
    direct_clients: int = 4
    expiring: int = 6
    meddle_s: float = 0.5
    workers: int = 1

    def count_clients(self) -> int:
        """Counts official and raw clients."""
        official = self.clients + bool(self.singles) + bool(self.expiring) + self.groups
        return official + self.fleets + self.rough + self.direct_clients
