"""Deadlines that pass, and callers that go away."""

from __future__ import annotations

from ..scope import Append, Follow, Peek, Scope, Start, steps
from .scripts import FORKED, GROUPED, ON_ONE_SLOT, RECREATED, SEQUENCE, TWO_SESSIONS, opened

SMALL = {
    "2 steps, a deadline passes": Scope((opened(11, 12),), overdue=1),
    "3 steps, window 3, 1 replica, a deadline passes": Scope(
        (opened(11, 12, 13, window=3),), replicas=1, overdue=1, atomic_commits=True
    ),
    "2 steps, window 2, 1 replica, a caller goes": Scope((opened(11, 12, window=2),), replicas=1, gone=1),
    "1 append, silent and a deadline passes": Scope(
        ((*opened(11), Append("s", 12)),), replicas=1, unknowns=1, overdue=1
    ),
    "a sequence of 3 steps, silent and a deadline passes": Scope(
        (SEQUENCE,), replicas=1, unknowns=1, overdue=1, atomic_commits=True
    ),
    "fork, a deadline passes and a caller goes": Scope((FORKED,), replicas=1, overdue=1, gone=1, atomic_commits=True),
    "2 sessions on 1 slot, a deadline passes": Scope(ON_ONE_SLOT, replicas=1, slots=1, overdue=1, one_call=True),
    "forecast and step, a caller goes and a deadline passes": Scope(
        ((*opened(11), Peek("s", 91, 2), steps("s", 12)),), replicas=1, overdue=1, gone=1, atomic_commits=True
    ),
    "a group of 2, a deadline passes": Scope((GROUPED,), replicas=1, overdue=1, atomic_commits=True, frames=True),
}

LARGE = {
    "2 steps, window 2, a deadline passes": Scope((opened(11, 12, window=2),), overdue=1, atomic_commits=True),
    "3 steps, window 3, 1 replica, 2 deadlines pass": Scope(
        (opened(11, 12, 13, window=3),), replicas=1, overdue=2, atomic_commits=True
    ),
    "2 clients on one session and a forecast, deadlines pass": Scope(
        ((*opened(11), Peek("s", 91, 2)), opened(21)), replicas=1, overdue=1, gone=1, atomic_commits=True
    ),
    "2 steps, window 2, silent and a deadline passes": Scope(
        (opened(11, 12, window=2),), unknowns=1, overdue=1, gone=1, atomic_commits=True
    ),
    "reset, delete, re-open, silent and a deadline passes": Scope((RECREATED,), unknowns=1, overdue=1, gone=1),
    "2 sessions on 1 slot, a deadline passes and a caller goes": Scope(
        TWO_SESSIONS, replicas=1, slots=1, overdue=1, gone=1, one_call=True, atomic_commits=True
    ),
    "2 sessions in frames, deadlines pass": Scope(
        TWO_SESSIONS, replicas=1, overdue=2, atomic_commits=True, frames=True, commits_together=True
    ),
    "2 sequences of one session, silent and a deadline passes": Scope(
        ((*SEQUENCE[:2], Start("s", 21), Follow("s", 22, 1)), (Append("s", 31),)),
        replicas=1,
        unknowns=1,
        overdue=1,
        atomic_commits=True,
    ),
}
