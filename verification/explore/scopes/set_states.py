"""States that clients set."""

from __future__ import annotations

from ..scope import CarryOver, Fork, Open, Reset, Scope, SetState, steps
from .scripts import BOTH_AND_NEW, READING, SET, opened

OTHERS = (Open("s"), SetState("s", (83,)), steps("s", 21))
SET_TWICE = (*SET, SetState("s", (83,)), steps("s", 13))
FORKED = (*SET, Fork("s", "t", 0), steps("t", 13), SetState("t", ()), steps("t", 14), steps("s", 15))
CARRIED = (*SET, CarryOver("s", 2), steps("s", 13), SetState("s", (83,)), steps("s", 14))

SMALL = {
    "a state is set, the store silent": Scope((SET,), unknowns=1, atomic_commits=True),
    "states are set, late copies": Scope((SET_TWICE,), replicas=1, slow=1, timeouts=1, atomic_commits=True),
    "2 steps, window 2, another client sets the state": Scope(
        (opened(11, 12, window=2), OTHERS[:2]), replicas=1, atomic_commits=True
    ),
    "a state is set beside a reset": Scope(
        ((*opened(11), Reset("s"), steps("s", 12)), OTHERS[:2]), replicas=1, atomic_commits=True
    ),
    "states are set, fork, the store silent": Scope(
        (FORKED,), replicas=1, unknowns=1, due_steps=4, atomic_commits=True
    ),
    "2 sessions on 1 slot, a state is set": Scope(
        (SET, opened(21, session="r")), replicas=1, slots=1, atomic_commits=True
    ),
    "a state is set, a crash": Scope((SET,), replicas=1, crashes=1, atomic_commits=True),
    "a state is set, a restart": Scope((SET,), replicas=1, restarts=1, atomic_commits=True),
    "a state is set, a deadline passes and a caller goes": Scope(
        (SET,), replicas=1, overdue=1, gone=1, atomic_commits=True
    ),
    "a state is set and read": Scope((SET, READING), replicas=1, atomic_commits=True),
    "a state is set, a tail lost": Scope((SET,), replicas=1, fall_backs=1, depth=2, atomic_commits=True),
    "a state is set, 2 power cuts": Scope((SET,), replicas=1, power_cuts=2, atomic_commits=True),
    "a state is set, the session expires": Scope((SET,), replicas=1, expiries=1, atomic_commits=True),
    "2 versions, states are set and carried over": Scope(
        (CARRIED,), replicas=1, serves=BOTH_AND_NEW, unknowns=1, due_steps=4, atomic_commits=True
    ),
}

LARGE = {
    "states are set, replies lost": Scope((SET_TWICE,), timeouts=2, atomic_commits=True),
    "states are set, the store silent twice": Scope((SET_TWICE,), unknowns=2),
    "2 steps, 2 replicas, another client sets the state": Scope((opened(11, 12), OTHERS), atomic_commits=True),
    "2 clients set the state, silent": Scope((SET, OTHERS), unknowns=1, atomic_commits=True),
    "2 clients set the state, late copies": Scope((SET, OTHERS), replicas=1, slow=1, timeouts=1, atomic_commits=True),
    "2 clients set the state, it expires": Scope((SET, OTHERS), replicas=1, expiries=1, atomic_commits=True),
    "a state is set and read, silent, a crash": Scope((SET, READING), unknowns=1, crashes=1, atomic_commits=True),
    "2 clients set the state, 2 power cuts": Scope((SET, OTHERS), power_cuts=2),
    "2 clients set the state, 2 power cuts, synced each second": Scope(
        (SET, OTHERS), replicas=1, power_cuts=2, synced=False, depth=2
    ),
    "states are set, fork, 2 power cuts, a session expires": Scope(
        (FORKED,), power_cuts=2, expiries=1, due_steps=4, atomic_commits=True
    ),
    "2 versions, 2 clients set the state and carry over, silent": Scope(
        (CARRIED, OTHERS), serves=BOTH_AND_NEW, unknowns=1, due_steps=4, atomic_commits=True
    ),
    "2 versions, states are set and carried over, exchanged": Scope(
        (CARRIED,), serves=BOTH_AND_NEW, others=(b"\2", b"\2\1"), exchanges=2, due_steps=4, atomic_commits=True
    ),
}
