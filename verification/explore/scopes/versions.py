"""Two versions of a model."""

from __future__ import annotations

from ..scope import TTL_MS, CarryOver, Fork, Open, Scope, SetState, steps
from .scripts import BACK, BOTH_AND_NEW, CARRIED, FORKED, ON_ONE_SLOT, READING, opened

RESET = (*opened(11), CarryOver("s", 2, reset=True), steps("s", 12))
FORKED_AND_CARRIED = (
    Open("s", 0),
    steps("s", 11, 12),
    Fork("s", "t", TTL_MS),
    CarryOver("t", 2),
    steps("t", 13),
    SetState("t", (81,)),
    CarryOver("t", 1),
    steps("t", 14),
    steps("s", 15),
)

SMALL = {
    "2 versions, carry-over, a reply lost": Scope((CARRIED,), serves=BOTH_AND_NEW, timeouts=1, atomic_commits=True),
    "2 versions, carry-over with a log and back, the store silent, 1 replica": Scope(
        ((*CARRIED, *BACK),), replicas=1, serves=BOTH_AND_NEW, unknowns=1, due_steps=4
    ),
    "2 versions, carry-over by a window, the store silent": Scope(
        ((*opened(11), CarryOver("s", 2, (41, 42)), steps("s", 12)),),
        serves=BOTH_AND_NEW,
        unknowns=1,
        atomic_commits=True,
    ),
    "2 versions, 2 steps, window 2, another client carries over": Scope(
        (opened(11, 12, window=2), (Open("s"), CarryOver("s", 2))), replicas=1, serves=BOTH_AND_NEW, due_steps=4
    ),
    "2 versions, 2 steps, exchanged twice": Scope(
        (opened(11, 12),), replicas=1, others=(b"\1", b"\2"), exchanges=2, atomic_commits=True
    ),
    "2 versions, 2 steps, window 2, exchanged": Scope(
        (opened(11, 12, window=2),), replicas=1, others=(b"\2",), exchanges=1
    ),
    "2 versions, carry-over, exchanged": Scope(
        (CARRIED,), replicas=1, serves=BOTH_AND_NEW, others=(b"\2",), exchanges=1, due_steps=4, atomic_commits=True
    ),
    "2 versions, carry-over by a reset, a reply lost": Scope(
        (RESET,), replicas=1, serves=BOTH_AND_NEW, timeouts=1, atomic_commits=True
    ),
    "2 versions, carry-over by resets and back, exchanged": Scope(
        ((*RESET, CarryOver("s", 1, reset=True), steps("s", 14)),),
        replicas=1,
        serves=BOTH_AND_NEW,
        others=(b"\2",),
        exchanges=1,
        atomic_commits=True,
    ),
    "2 versions, 2 steps, another client carries over by a reset": Scope(
        (opened(11, 12), (Open("s"), CarryOver("s", 2, reset=True), steps("s", 21))),
        replicas=1,
        serves=BOTH_AND_NEW,
        atomic_commits=True,
    ),
    "2 versions, carry-over by a reset, a restart": Scope(
        (RESET,), replicas=1, serves=BOTH_AND_NEW, restarts=1, atomic_commits=True
    ),
    "2 versions, a fork with a TTL is carried over, a session expires": Scope(
        (FORKED_AND_CARRIED,), replicas=1, serves=BOTH_AND_NEW, expiries=1, due_steps=4, atomic_commits=True
    ),
}

LARGE = {
    "2 versions, carry-over by resets and back, silent, exchanged": Scope(
        ((*RESET, CarryOver("s", 1, reset=True), steps("s", 14)),),
        serves=BOTH_AND_NEW,
        others=(b"\2",),
        exchanges=1,
        unknowns=1,
        atomic_commits=True,
    ),
    "2 versions, carry-over by a reset and back, 2 power cuts": Scope(
        ((*RESET, *BACK),), serves=(b"\1\2", b"\2"), power_cuts=2, due_steps=4, atomic_commits=True
    ),
    "2 versions, carry-over by a reset beside steps, late copies": Scope(
        (opened(11, 12, window=2), (Open("s"), CarryOver("s", 2, reset=True), steps("s", 21))),
        serves=BOTH_AND_NEW,
        slow=1,
        timeouts=1,
        atomic_commits=True,
    ),
    "2 versions, a fork with a TTL is carried over, 2 power cuts, a session expires": Scope(
        (FORKED_AND_CARRIED,), serves=BOTH_AND_NEW, power_cuts=2, expiries=1, due_steps=4, atomic_commits=True
    ),
    "2 versions, a fork with a TTL is carried over, silent, sessions expire": Scope(
        (FORKED_AND_CARRIED,), serves=BOTH_AND_NEW, unknowns=1, expiries=2, due_steps=4, atomic_commits=True
    ),
    "2 versions, carry-over and back, late copies": Scope(
        ((*CARRIED, *BACK),), serves=BOTH_AND_NEW, slow=1, timeouts=1, due_steps=4, atomic_commits=True
    ),
    "2 versions, window 2, another client carries over and back, silent": Scope(
        (opened(11, 12, 13, window=2), (Open("s"), CarryOver("s", 2), steps("s", 21), CarryOver("s", 1))),
        serves=BOTH_AND_NEW,
        unknowns=1,
        due_steps=4,
        atomic_commits=True,
    ),
    "2 versions, carry-over by a window beside steps, silent": Scope(
        (opened(11, 12, window=2), (Open("s"), CarryOver("s", 2, (41, 42)), steps("s", 21))),
        serves=BOTH_AND_NEW,
        unknowns=1,
        atomic_commits=True,
    ),
    "2 versions, carry-over and a reader, exchanged": Scope(
        (CARRIED, READING), serves=BOTH_AND_NEW, others=(b"\2", b"\1"), exchanges=1, due_steps=4, atomic_commits=True
    ),
    "2 versions, carry-over beside steps, exchanged twice": Scope(
        (opened(11, 12, 13, window=2), (Open("s"), CarryOver("s", 2), steps("s", 21))),
        replicas=1,
        serves=BOTH_AND_NEW,
        others=(b"\2", b"\1\2", b"\1"),
        exchanges=2,
        due_steps=4,
    ),
    "2 versions, carry-over, a tail lost": Scope(
        ((*CARRIED, *BACK),), serves=BOTH_AND_NEW, fall_backs=1, depth=2, atomic_commits=True
    ),
    "2 versions, carry-over and back, a crash and a deadline": Scope(
        ((*CARRIED, *BACK),), serves=BOTH_AND_NEW, crashes=1, overdue=1, due_steps=4, atomic_commits=True
    ),
    "2 versions, 2 sessions on 1 slot, exchanged twice": Scope(
        ON_ONE_SLOT, replicas=1, slots=1, others=(b"\1", b"\2"), exchanges=2, atomic_commits=True
    ),
    "2 versions, a fork, carry-over, the store silent": Scope(
        ((*FORKED, CarryOver("t", 2), steps("t", 14)),), replicas=1, serves=BOTH_AND_NEW, unknowns=1, due_steps=4
    ),
}
