"""Peeks, forecasts and reads of the state."""

from __future__ import annotations

from ..scope import GetState, Peek, Scope, steps
from .scripts import FORKED, ON_ONE_SLOT, READING, RECREATED, opened

SMALL = {
    "peek, read, step, a reply lost": Scope(
        ((*opened(11), *READING, steps("s", 12)),), timeouts=1, atomic_commits=True
    ),
    "forecast, the store silent": Scope(
        ((*opened(11), Peek("s", 91, 2), steps("s", 12)),), replicas=1, unknowns=1, atomic_commits=True
    ),
    "2 steps and a reader": Scope((opened(11, 12), (GetState("s"),)), atomic_commits=True),
    "2 steps, window 2, and a reader, 1 replica": Scope((opened(11, 12, window=2), (Peek("s", 91),)), replicas=1),
    "2 steps and a reader, 1 replica, the store silent": Scope(
        (opened(11, 12), (Peek("s", 91),)), replicas=1, unknowns=1
    ),
    "2 steps and a reader, 1 replica, a tail lost": Scope(
        (opened(11, 12), (GetState("s"),)), replicas=1, fall_backs=1, atomic_commits=True
    ),
    "reset, delete, re-open and a reader, 1 replica": Scope((RECREATED, READING), replicas=1, atomic_commits=True),
    "2 sessions on 1 slot, one is read": Scope(
        ((*opened(11), *READING), opened(21, session="r")), replicas=1, slots=1, atomic_commits=True
    ),
}

LARGE = {
    "2 steps and a reader, a crash": Scope((opened(11, 12), (Peek("s", 91),)), crashes=1, atomic_commits=True),
    "2 steps, window 2, and a reader, the store silent": Scope(
        (opened(11, 12, window=2), READING), unknowns=1, atomic_commits=True
    ),
    "2 sessions on 1 slot and a reader, silent": Scope((*ON_ONE_SLOT, READING), replicas=1, slots=1, unknowns=1),
    "reset, delete, re-open and a reader, silent": Scope((RECREATED, READING), unknowns=1, atomic_commits=True),
    "fork and readers, a tail lost": Scope((FORKED, READING, (GetState("t"),)), replicas=1, fall_backs=1),
    "3 steps and a reader, a short log": Scope(
        (opened(11, 12, 13, window=2), READING), replicas=1, max_log_steps=2, due_steps=8, unknowns=1
    ),
    "2 steps and a reader, 2 power cuts": Scope((opened(11, 12), (Peek("s", 91),)), replicas=1, power_cuts=2),
}
