"""Sessions that expire."""

from __future__ import annotations

from ..scope import TTL_MS, Append, Fork, GetState, Open, Scope, steps
from .scripts import FORKED, READING, RECREATED, SEQUENCE, opened

TTL_TAKEN_AWAY = (*opened(11), Open("s", 0), steps("s", 12))

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
    "fork that expires of what does not": Scope(
        ((Open("s", 0), steps("s", 11), Fork("s", "t", TTL_MS), steps("t", 12), steps("s", 13)),),
        replicas=1,
        expiries=1,
        atomic_commits=True,
    ),
    "2 steps, 2 power cuts, the session expires": Scope(
        (opened(11, 12),), power_cuts=2, expiries=1, atomic_commits=True
    ),
    "an append, 2 power cuts, the session expires": Scope(
        ((*opened(11), Append("s", 12)),), replicas=1, power_cuts=2, expiries=1, atomic_commits=True
    ),
    "2 steps and no TTL any more, 2 power cuts, the session expires": Scope(
        (TTL_TAKEN_AWAY,), replicas=1, power_cuts=2, expiries=1, atomic_commits=True
    ),
    "2 steps, a tail lost, the session expires": Scope(
        (opened(11, 12),), replicas=1, fall_backs=1, depth=2, expiries=1, atomic_commits=True
    ),
}

POWER_CUTS = {
    "2 steps, 2 power cuts, synced each second, the session expires": Scope(
        (opened(11, 12),), replicas=1, power_cuts=2, synced=False, depth=3, expiries=1, atomic_commits=True
    ),
    "2 steps, 3 power cuts, the session expires twice": Scope((opened(11, 12),), power_cuts=3, expiries=2),
    "2 clients on one session, 2 power cuts, it expires": Scope(
        (opened(11), opened(21)), replicas=1, power_cuts=2, expiries=1, atomic_commits=True
    ),
    "2 clients and 2 TTLs, 2 power cuts, the session expires": Scope(
        (opened(11), (Open("s", 0), steps("s", 21))), replicas=1, power_cuts=2, expiries=1
    ),
    "2 clients and 2 TTLs, 2 power cuts, synced each second, the session expires": Scope(
        (opened(11), (Open("s", 0), steps("s", 21))), power_cuts=2, synced=False, depth=3, expiries=1
    ),
    "2 steps and another TTL, 3 power cuts, the session expires": Scope(
        ((*opened(11), Open("s", 2 * TTL_MS), steps("s", 12)),), replicas=1, power_cuts=3, expiries=1
    ),
    "fork, 2 power cuts, a session expires": Scope(
        (FORKED,), replicas=1, power_cuts=2, expiries=1, atomic_commits=True
    ),
    "a step and a reader, 3 power cuts, the session expires": Scope(
        (opened(11), (GetState("s"),)), replicas=1, power_cuts=3, expiries=1, atomic_commits=True
    ),
    "reset, delete, re-open, 2 power cuts, the session expires": Scope((RECREATED,), power_cuts=2, expiries=1),
    "2 clients on one session, up to 3 commits lost, it expires": Scope(
        (opened(11, 12), opened(21)), fall_backs=1, depth=3, expiries=1, atomic_commits=True
    ),
    "reset, delete, re-open, a tail lost, the session expires": Scope(
        (RECREATED,), replicas=1, fall_backs=1, depth=2, expiries=1, atomic_commits=True
    ),
}

LARGE = POWER_CUTS | {
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
