"""The settings of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    every_s: mean seconds between two faults. only: kinds of faults; empty: all. clients: official ones with `sessions`
    sessions each; one more has `singles` sessions and steps them one by one. groups: official ones that step
    `together` sessions of a model as a group. frame_clients: raw ones that step `together` sessions of a model in one
    frame. raw_clients: raw ones of one session. direct_clients: the same, but they step only after a power cut.
    interfere_s: mean seconds between two operations of the interfering client. workers: processes of each server.
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
    frame_clients: int = 3
    together: int = 64
    raw_clients: int = 10
    direct_clients: int = 4
    expiring: int = 6
    interfere_s: float = 0.5
    workers: int = 1

    def count_clients(self) -> int:
        """Counts official and raw clients."""
        official = self.clients + bool(self.singles) + bool(self.expiring) + self.groups
        return official + self.frame_clients + self.raw_clients + self.direct_clients
