"""Sessions that expire."""

from __future__ import annotations

from ..scope import Append, Scope
from .scripts import FORKED, READING, RECREATED, SEQUENCE, opened

SMALL = {
    "2 steps, the session expires": Scope((opened(11, 12),), expiries=1, atomic_commits=True),
    "2 steps, window 2, 1 replica, silent, the session expires": Scope(
        (opened(11, 12, window=2),), replicas=1, unknowns=1, expiries=1, atomic_commits=True
    ),
    "2 clients on one session, 1 replica, it expires": Scope(
        (opened(11, 12), opened(21)), replicas=1, expiries=1, atomic_commits=True
    ),
    "reads of one's own, the session expires": Scope(
        ((*opened(11), *READING),), replicas=1, expiries=1, atomic_commits=True
    ),
    "an append, silent, the session expires": Scope(
        ((*opened(11), Append("s", 12)),), replicas=1, unknowns=1, expiries=1, atomic_commits=True
    ),
    "a sequence of 2 steps, silent, the session expires": Scope(
        (SEQUENCE[:2],), replicas=1, unknowns=1, expiries=1, atomic_commits=True
    ),
    "fork, a session expires": Scope((FORKED,), replicas=1, expiries=1, atomic_commits=True),
}

LARGE = {
    "2 clients on one session, it expires twice": Scope((opened(11, 12), opened(21)), expiries=2, atomic_commits=True),
    "2 clients on one session, silent, it expires": Scope(
        (opened(11, 12), opened(21)), replicas=1, unknowns=1, expiries=1
    ),
    "2 clients on one session, late copies, it expires": Scope(
        (opened(11), opened(21)), slow=1, timeouts=1, expiries=1, atomic_commits=True
    ),
    "2 steps and a restart, the session expires": Scope((opened(11, 12),), restarts=1, expiries=1, atomic_commits=True),
    "2 steps and a reader, the session expires": Scope((opened(11, 12), READING), expiries=1, atomic_commits=True),
    "reset, delete, re-open, silent, the session expires": Scope(
        (RECREATED,), replicas=1, unknowns=1, expiries=1, atomic_commits=True
    ),
    "a sequence of 3 steps, late copies, the session expires": Scope(
        (SEQUENCE,), replicas=1, slow=1, timeouts=1, expiries=1, atomic_commits=True
    ),
    "2 steps, a deadline passes, a crash, the session expires": Scope(
        (opened(11, 12),), overdue=1, crashes=1, expiries=1, atomic_commits=True
    ),
}
