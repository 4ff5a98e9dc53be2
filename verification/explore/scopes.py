"""The scopes that are explored entirely, from small to large."""

from __future__ import annotations

from .scope import (
    Append,
    CarryOver,
    Delete,
    Follow,
    Fork,
    GetState,
    GroupSteps,
    Op,
    Open,
    Peek,
    Reset,
    Scope,
    Start,
    steps,
)
from .sequential_model import Inputs


def opened(*values: int | Inputs, window: int = 1, session: str = "s") -> tuple[Op, ...]:
    """Returns a script that opens a session and steps it."""
    return (Open(session), steps(session, *values, window=window))


RECREATED = (*opened(11), Reset("s"), steps("s", 12), Delete("s"), *opened(13))
TWO_SESSIONS = (opened(11, 12), opened(21, 22, session="r"))
GROUPED: tuple[Op, ...] = (Open("s"), Open("r"), GroupSteps(("s", "r"), ((11, 21), (12, 22))))
TWO_STEPS_EACH = (*opened(11, 12), Reset("s"), steps("s", 13, 14), Delete("s"), *opened(15, 16))
SEQUENCE = (Start("s", 11), Follow("s", 12, 1), Follow("s", 13, 2))
FORKED = (*opened(11), Fork("s", "t"), steps("t", 12), steps("s", 13))
READING: tuple[Op, ...] = (Peek("s", 91), GetState("s"))
ON_ONE_SLOT = (opened(11), opened(21, session="r"))

SMALL = {
    "2 steps, window 1, a reply lost": Scope((opened(11, 12),), timeouts=1),
    "2 steps, window 2, 1 replica, a reply lost": Scope(
        (opened(11, 12, window=2),), replicas=1, timeouts=1, atomic_commits=True
    ),
    "3 steps, window 3, 1 replica": Scope((opened(11, 12, 13, window=3),), replicas=1, atomic_commits=True),
    "2 steps, window 1, the store silent twice": Scope((opened(11, 12),), unknowns=2),
    "2 steps, window 2, 1 replica, the store silent": Scope(
        (opened(11, 12, window=2),), replicas=1, unknowns=1, atomic_commits=True
    ),
    "2 steps, window 1, a tail lost": Scope((opened(11, 12),), fall_backs=1, depth=2),
    "2 clients on one session": Scope((opened(11), opened(21)), atomic_commits=True),
    "2 sessions on 1 slot": Scope((opened(11), opened(21, session="r")), replicas=1, slots=1),
    "reset, delete, re-open": Scope((RECREATED,)),
    "fork": Scope((FORKED,)),
    "2 steps, a restart": Scope((opened(11, 12),), restarts=1, atomic_commits=True),
    "1 append, the store silent": Scope(((*opened(11), Append("s", 12)),), unknowns=1),
    "a sequence of 3 steps, the store silent twice": Scope((SEQUENCE,), unknowns=2, atomic_commits=True),
    "a sequence of 3 steps, a reply lost, a request late": Scope((SEQUENCE,), timeouts=1, slow=1, atomic_commits=True),
    "2 sequences of one session, the store silent": Scope(
        ((*SEQUENCE[:2], Start("s", 21), Follow("s", 22, 1)),), unknowns=1, atomic_commits=True
    ),
    "2 sessions in frames": Scope(TWO_SESSIONS, replicas=1, frames=True),
    "2 sessions in frames on 1 slot": Scope(TWO_SESSIONS, replicas=1, slots=1, atomic_commits=True, frames=True),
    "a group of 2, a reply lost": Scope((GROUPED,), replicas=1, timeouts=1, atomic_commits=True, frames=True),
    "a group of 2, its caller stops waiting": Scope(
        (GROUPED,), replicas=1, give_ups=1, atomic_commits=True, frames=True
    ),
    "a group of 2, a commit lost": Scope((GROUPED,), replicas=1, fall_backs=1, atomic_commits=True, frames=True),
    "2 clients on one session, 2 steps each, 1 replica": Scope(
        (opened(11, 12), opened(21, 22)), replicas=1, atomic_commits=True
    ),
    "3 steps, window 2, 1 replica, the store silent": Scope(
        (opened(11, 12, 13, window=2),), replicas=1, unknowns=1, due_steps=2, atomic_commits=True
    ),
    "2 steps, a refusal and a crash": Scope((opened(11, 12),), refusals=1, crashes=1, atomic_commits=True),
    "reset, delete, re-open, 2 steps each": Scope((TWO_STEPS_EACH,), atomic_commits=True),
    "2 steps and an append, the store silent": Scope(
        ((*opened(11, 12), Append("s", 13)),), unknowns=1, atomic_commits=True
    ),
    "4 steps, a short log": Scope((opened(11, 12, 13, 14),), replicas=1, max_log_steps=2, due_steps=8),
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

READS = {
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

DEADLINES = {
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

EXPIRIES = {
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

BOTH_AND_NEW = (b"\1\2", b"\2")
CARRIED: tuple[Op, ...] = (*opened(11, 12), CarryOver("s", 2), steps("s", 13))
BACK: tuple[Op, ...] = (CarryOver("s", 1), steps("s", 14))

VERSIONS = {
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
}

SMALL |= READS | DEADLINES | EXPIRIES | VERSIONS

READS_AND_FAULTS = {
    "2 steps, window 2, a deadline passes": Scope((opened(11, 12, window=2),), overdue=1, atomic_commits=True),
    "3 steps, window 3, 1 replica, 2 deadlines pass": Scope(
        (opened(11, 12, 13, window=3),), replicas=1, overdue=2, atomic_commits=True
    ),
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

EXPIRIES_AND_FAULTS = {
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

VERSIONS_AND_FAULTS = {
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

STEPS_AND_FAULTS = {
    "2 steps, window 2, a reply lost": Scope((opened(11, 12, window=2),), timeouts=1, atomic_commits=True),
    "2 steps, window 2, the store silent": Scope((opened(11, 12, window=2),), unknowns=1, atomic_commits=True),
    "2 steps, window 2, a reply lost, apart": Scope((opened(11, 12, window=2),), timeouts=1, atomic_reads=False),
    "2 steps, window 2, 2 replies lost": Scope((opened(11, 12, window=2),), timeouts=2, atomic_commits=True),
    "2 steps, window 2, silent and lost": Scope((opened(11, 12, window=2),), timeouts=1, unknowns=1),
    "3 steps, window 2, up to 3 commits lost": Scope((opened(11, 12, 13, window=2),), fall_backs=1, depth=3),
    "3 steps, window 2, tail and reply lost": Scope(
        (opened(11, 12, 13, window=2),), fall_backs=1, depth=2, timeouts=1, atomic_commits=True
    ),
    "4 steps, window 2": Scope((opened(11, 12, 13, 14, window=2),)),
    "4 steps, window 2, one replica, silent twice": Scope(
        (opened(11, 12, 13, 14, window=2),), replicas=1, unknowns=2, timeouts=1, atomic_commits=True
    ),
    "2 clients on one session, 2 steps each": Scope((opened(11, 12), opened(21, 22)), atomic_commits=True),
    "2 clients on one session, silent": Scope((opened(11), opened(21)), unknowns=1),
    "2 clients on one session, a tail lost": Scope((opened(11, 12), opened(21)), fall_backs=1, atomic_commits=True),
    "2 sessions": Scope((opened(11, 12), opened(21, session="r")), atomic_commits=True),
    "reset, delete, re-open, slow copies": Scope((RECREATED,), slow=1, timeouts=1, atomic_commits=True),
    "reset, delete, re-open, the store silent twice": Scope((RECREATED,), unknowns=2),
    "reset, delete, re-open, a tail lost": Scope((RECREATED,), fall_backs=1, depth=2),
    "reset, delete, re-open, a crash": Scope((RECREATED,), crashes=1, unknowns=1, atomic_commits=True),
    "fork, slow copies": Scope((FORKED,), slow=1, timeouts=1, atomic_commits=True),
    "fork, the store silent": Scope((FORKED,), unknowns=1, timeouts=1, atomic_commits=True),
    "fork, a tail of one record lost": Scope((FORKED,), fall_backs=1, depth=2, atomic_commits=True),
    "restart and late copies": Scope((opened(11, 12, window=2),), restarts=1, slow=1, atomic_commits=True),
    "restart that insists, a tail lost": Scope(
        (opened(11, 12, 13),), restarts=1, expects=True, fall_backs=1, atomic_commits=True
    ),
    "2 sessions on 1 slot, silent": Scope(
        (opened(11, 12), opened(21, session="r")), replicas=1, slots=1, unknowns=1, atomic_commits=True
    ),
    "a short log": Scope((opened(11, 12, 13, 14, window=2),), replicas=1, max_log_steps=2, due_steps=8, timeouts=1),
    "a short memory": Scope((opened(11, 12, 13),), fall_backs=1, depth=3, buffer_steps=1, atomic_commits=True),
}

POWER_CUTS = {
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


LARGE = {
    **POWER_CUTS,
    **READS_AND_FAULTS,
    **EXPIRIES_AND_FAULTS,
    **VERSIONS_AND_FAULTS,
    **STEPS_AND_FAULTS,
    "reset, delete, re-open, 2 steps each, the store silent": Scope((TWO_STEPS_EACH,), unknowns=1, timeouts=1),
    "reset, delete, re-open, 2 steps each, slow copies": Scope(
        (TWO_STEPS_EACH,), slow=1, timeouts=1, atomic_commits=True
    ),
    "3 steps, window 1, up to 3 commits lost": Scope((opened(11, 12, 13),), fall_backs=1, depth=3),
    "3 steps, window 1, silent, other checkpoints": Scope(
        (opened(11, 12, 13),), unknowns=1, timeouts=1, due_steps=2, other_due_steps=1
    ),
    "a group of 2, up to 2 commits lost": Scope((GROUPED,), fall_backs=1, depth=2, atomic_commits=True, frames=True),
    "a group of 2, a reply lost and a crash": Scope(
        (GROUPED,), timeouts=1, crashes=1, atomic_commits=True, frames=True
    ),
    "a group of 2, silent, its caller stops waiting": Scope(
        (GROUPED,), replicas=1, unknowns=1, give_ups=1, frames=True
    ),
    "2 sessions in frames, silent": Scope(TWO_SESSIONS, replicas=1, unknowns=1, atomic_commits=True, frames=True),
    "2 sessions in frames, 2 replicas": Scope(TWO_SESSIONS, atomic_commits=True, frames=True),
    "2 sessions in frames, a crash and a reply lost": Scope(
        TWO_SESSIONS, replicas=1, crashes=1, timeouts=1, atomic_commits=True, frames=True
    ),
}
