"""The settings of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    every_s: mean seconds between two faults. only: kinds of faults; empty: all. clients: official ones with `sessions`
    sessions each; one more has `singles` sessions and steps them one by one. groups: official ones that step
    `together` sessions of a model as a group. frame_clients: raw ones that step `together` sessions of a model in one
    frame. raw_clients: raw ones of one session. contended: sessions that two raw clients step, each without regard for
    the other. direct_clients: raw ones of one session that step only after a power cut.
    interfering: clients that change others' sessions, each every
    interfere_s on average. workers: processes of each server. wait_replicas: replicas of Redis that must have a commit
    before the servers acknowledge it.
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
    contended: int = 2
    direct_clients: int = 4
    expiring: int = 6
    interfering: int = 3
    interfere_s: float = 0.5
    workers: int = 1
    wait_replicas: int = 0

    def count_clients(self) -> int:
        """Counts official and raw clients."""
        official = self.clients + bool(self.singles) + bool(self.expiring) + self.groups
        return official + self.frame_clients + self.raw_clients + 2 * self.contended + self.direct_clients
