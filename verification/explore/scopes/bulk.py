"""Calls with several items, of which one may fail alone."""

from __future__ import annotations

from tests.unit.core.counting_engine import POISON

from ..scope import CarryOver, Delete, Many, Op, Open, Reset, Scope, SetState, steps
from .scripts import BOTH_AND_NEW, opened

OPEN, CLOSE = Many((Open("s"), Open("r"))), Many((Delete("s"), Delete("r")))
CARRY = Many((CarryOver("s", 2), CarryOver("r", 2, (41,))))
POISONED = Many((CarryOver("s", 2, (POISON,)), CarryOver("r", 2, (41,))))
BOTH: tuple[Op, ...] = (steps("s", 11), steps("r", 21))
RESTARTED = (OPEN, *BOTH, Many((Reset("s"), SetState("r", (81,)))), steps("s", 12), steps("r", 22))
CARRIED = (OPEN, *BOTH, CARRY, steps("s", 12), steps("r", 22))

SMALL = {
    "2 are opened at once, a reply lost": Scope(((OPEN, *BOTH),), replicas=1, timeouts=1, atomic_commits=True),
    "2 are opened at once, the store silent": Scope(
        ((OPEN, *BOTH),), replicas=1, unknowns=1, commits_together=True, atomic_commits=True
    ),
    "2 are opened at once, a refusal and a read lost": Scope(
        ((OPEN, *BOTH),), replicas=1, refusals=1, unread=1, one_call=True, atomic_commits=True
    ),
    "2 are opened at once, one by another client, too": Scope(
        ((OPEN, *BOTH), opened(31)), replicas=1, commits_together=True, atomic_commits=True
    ),
    "2 are closed at once, another client is at work on one": Scope(
        ((OPEN, CLOSE, OPEN), opened(31)), replicas=1, one_call=True, atomic_commits=True
    ),
    "2 are reset and set at once, the store silent": Scope(
        (RESTARTED,), replicas=1, unknowns=1, commits_together=True, atomic_commits=True
    ),
    "2 are carried over at once, a reply lost": Scope(
        (CARRIED,), replicas=1, serves=BOTH_AND_NEW, timeouts=1, atomic_commits=True
    ),
    "2 are carried over at once, one's window has no finite state": Scope(
        ((OPEN, *BOTH, POISONED, steps("s", 12), steps("r", 22)),),
        replicas=1,
        serves=BOTH_AND_NEW,
        one_call=True,
        unknowns=1,
        atomic_commits=True,
    ),
    "2 are carried over at once, one expires": Scope(
        ((OPEN, CARRY, *BOTH),), replicas=1, serves=BOTH_AND_NEW, expiries=1, atomic_commits=True
    ),
    "2 are carried over at once on 1 slot": Scope(
        (CARRIED,), replicas=1, slots=1, due_steps=4, serves=BOTH_AND_NEW, atomic_commits=True
    ),
    "2 are carried over and closed at once, a restart": Scope(
        ((OPEN, CARRY, CLOSE),), replicas=1, serves=BOTH_AND_NEW, restarts=1, atomic_commits=True
    ),
}

LARGE = {
    "2 are opened at once, 2 replicas, a crash": Scope(((OPEN, *BOTH),), crashes=1, atomic_commits=True),
    "2 are opened at once, one by another client, too, silent": Scope(
        ((OPEN, *BOTH), opened(31)), unknowns=1, commits_together=True
    ),
    "2 are closed and opened at once, late copies": Scope(
        ((OPEN, CLOSE, OPEN, *BOTH),), slow=1, timeouts=1, atomic_commits=True
    ),
    "2 are closed and opened at once, 2 power cuts": Scope(
        ((OPEN, CLOSE, OPEN),), replicas=1, power_cuts=2, commits_together=True
    ),
    "2 are reset and set at once, 2 power cuts, synced each second": Scope(
        (RESTARTED,), replicas=1, power_cuts=2, synced=False, depth=2, commits_together=True, atomic_commits=True
    ),
    "2 are reset and set at once, late copies, sessions expire": Scope(
        (RESTARTED,), replicas=1, slow=1, timeouts=1, expiries=2, atomic_commits=True
    ),
    "2 are carried over at once, a deadline passes and a caller goes": Scope(
        (CARRIED,), replicas=1, serves=BOTH_AND_NEW, overdue=1, gone=1, atomic_commits=True
    ),
    "2 are carried over at once, silent, exchanged": Scope(
        (CARRIED,), serves=BOTH_AND_NEW, others=(b"\2", b"\1"), exchanges=1, unknowns=1, atomic_commits=True
    ),
    "2 are carried over at once beside steps, a tail lost": Scope(
        ((OPEN, CARRY, *BOTH), opened(31, 32)), serves=BOTH_AND_NEW, fall_backs=1, depth=2, atomic_commits=True
    ),
    "2 are carried over at once, 2 power cuts, sessions expire": Scope(
        (CARRIED,),
        replicas=1,
        serves=BOTH_AND_NEW,
        power_cuts=2,
        expiries=1,
        commits_together=True,
        atomic_commits=True,
    ),
}
