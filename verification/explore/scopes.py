"""The scopes that are explored entirely, from small to large, and a source of larger ones."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

from .scope import Append, Delete, Follow, Fork, GroupSteps, Op, Open, Reset, Scope, Start, Steps, steps
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


def drawn(draw: random.Random) -> Scope:
    """Draws a scope: up to 2 clients, 4 chunks in a row, resets, deletes and forks, and one to six kinds of faults."""
    values = count(11)
    shared = draw.random() < 0.4
    clients = draw.choice((1, 1, 2))
    scripts = tuple(_script(draw, values, "s" if shared else "sr"[index], index) for index in range(clients))

    kinds = (
        "slow",
        "timeouts",
        "unknowns",
        "fall_backs",
        "restarts",
        "give_ups",
        "crashes",
        "refusals",
        "unread",
        "power_cuts",
    )
    faults: dict[str, Any] = dict.fromkeys(
        draw.choices(kinds, (4, 5, 4, 5, 2, 1, 2, 1, 1, 4), k=draw.choice((1, 2, 2, 3, 6))), 1
    )
    faults.update({kind: 2 for kind in faults if draw.random() < 0.3})
    if "power_cuts" in faults:
        faults["power_cuts"] = draw.choice((2, 3))
    return Scope(
        scripts,
        replicas=draw.choice((1, 2, 2)),
        synced=draw.random() < 0.5,
        depth=draw.randint(1, 4),
        expects=draw.random() < 0.5,
        due_steps=draw.choice((1, 2, 3)),
        other_due_steps=draw.choice((0, 0, 1, 5)),
        slots=draw.choice((1, 2, 4)),
        buffer_steps=draw.choice((4, 1024)),
        max_log_steps=draw.choice((4, 8)),
        atomic_reads=draw.random() < 0.7,
        atomic_commits=draw.random() < 0.5,
        commits_together=draw.random() < 0.5,
        frames=draw.random() < 0.6,
        **faults,
    )


def _script(draw: random.Random, values: count[int], session: str, index: int) -> tuple[Op, ...]:
    def some_steps(name: str) -> Steps:
        chunks = tuple(tuple(next(values) for _ in range(draw.choice((1, 1, 2)))) for _ in range(draw.randint(1, 4)))
        return Steps(name, chunks, draw.choice((1, 2, 2, 3)))

    script: list[Op] = [Open(session), some_steps(session)]
    for turn in range(draw.choice((0, 0, 1, 2, 3))):
        what = draw.choice(("steps", "reset", "delete", "fork", "append"))
        if what == "steps":
            script.append(some_steps(session))
        elif what == "reset":
            script += [Reset(session), some_steps(session)]
        elif what == "delete":
            script += [Delete(session), Open(session), some_steps(session)]
        elif what == "fork":
            target = f"t{index}{turn}"
            script += [Fork(session, target), some_steps(target)]
            if draw.random() < 0.5:
                script += [Delete(target), Fork(session, target), some_steps(target)]
        else:
            script += [Append(session, next(values)), Open(session), some_steps(session)]
    return tuple(script)
