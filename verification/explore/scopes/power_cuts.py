"""Power cuts and restarts of Redis."""

from __future__ import annotations

from ..scope import Append, Delete, Open, Reset, Scope
from .scripts import FORKED, RECREATED, opened

SMALL = {
    "2 steps, a power cut and a restart": Scope((opened(11, 12),), power_cuts=2),
    "2 steps, 1 replica, 3 power cuts": Scope((opened(11, 12),), replicas=1, power_cuts=3),
    "2 steps, 2 power cuts, synced each second": Scope(
        (opened(11, 12),), replicas=1, power_cuts=2, synced=False, depth=3
    ),
    "open, reset, delete, open, 2 power cuts": Scope(
        ((*opened(11), Reset("s"), Delete("s"), Open("s")),), replicas=1, power_cuts=2
    ),
    "open, reset, delete, open, 2 power cuts, synced each second": Scope(
        ((*opened(11), Reset("s"), Delete("s"), Open("s")),), replicas=1, power_cuts=2, synced=False, depth=2
    ),
}

LARGE = {
    "2 records in a commit call, 2 power cuts, synced each second": Scope(
        (opened(11), opened(21, session="r")),
        replicas=1,
        power_cuts=2,
        synced=False,
        commits_together=True,
        atomic_commits=True,
    ),
    "2 steps, 3 power cuts, a reply lost": Scope((opened(11, 12),), power_cuts=3, timeouts=1),
    "3 steps, 3 power cuts, other checkpoints": Scope(
        (opened(11, 12, 13),), power_cuts=3, timeouts=1, due_steps=2, other_due_steps=1
    ),
    "2 steps, 3 power cuts, synced each second": Scope(
        (opened(11, 12),), power_cuts=3, synced=False, depth=3, timeouts=1
    ),
    "2 clients on one session, 2 power cuts": Scope((opened(11), opened(21)), power_cuts=2),
    "2 clients on one session, 2 power cuts, synced each second": Scope(
        (opened(11), opened(21)), replicas=1, power_cuts=2, synced=False, depth=2
    ),
    "2 clients on one session, a delete, 2 power cuts": Scope(
        ((*opened(11), Delete("s")), opened(21)), power_cuts=2, due_steps=4
    ),
    "reset, delete, re-open, 2 power cuts": Scope((RECREATED,), power_cuts=2),
    "reset, delete, re-open, 2 power cuts, synced each second": Scope(
        (RECREATED,), power_cuts=2, synced=False, depth=2
    ),
    "fork, 2 power cuts": Scope((FORKED,), power_cuts=2),
    "fork, 2 power cuts, synced each second": Scope((FORKED,), power_cuts=2, synced=False, depth=2),
    "2 records in a commit call, 2 power cuts": Scope(
        (opened(11, 12), opened(21, session="r")), replicas=1, power_cuts=2, commits_together=True
    ),
    "2 clients on one session, 3 power cuts, synced each second": Scope(
        (opened(11), opened(21)), power_cuts=3, synced=False, depth=2, commits_together=True
    ),
    "an append, 2 power cuts": Scope(((*opened(11), Append("s", 12)),), power_cuts=2),
    "a restart, 2 power cuts": Scope((opened(11, 12),), power_cuts=2, restarts=1),
}
