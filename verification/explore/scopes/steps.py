"""Steps of clients with windows, replays, full slots and short logs."""

from __future__ import annotations

from ..scope import Scope
from .scripts import opened

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
    "2 steps, a restart": Scope((opened(11, 12),), restarts=1, atomic_commits=True),
    "2 clients on one session, 2 steps each, 1 replica": Scope(
        (opened(11, 12), opened(21, 22)), replicas=1, atomic_commits=True
    ),
    "3 steps, window 2, 1 replica, the store silent": Scope(
        (opened(11, 12, 13, window=2),), replicas=1, unknowns=1, due_steps=2, atomic_commits=True
    ),
    "2 steps, a refusal and a crash": Scope((opened(11, 12),), refusals=1, crashes=1, atomic_commits=True),
    "4 steps, a short log": Scope((opened(11, 12, 13, 14),), replicas=1, max_log_steps=2, due_steps=8),
}

LARGE = {
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
    "restart and late copies": Scope((opened(11, 12, window=2),), restarts=1, slow=1, atomic_commits=True),
    "restart that insists, a tail lost": Scope(
        (opened(11, 12, 13),), restarts=1, expects=True, fall_backs=1, atomic_commits=True
    ),
    "2 sessions on 1 slot, silent": Scope(
        (opened(11, 12), opened(21, session="r")), replicas=1, slots=1, unknowns=1, atomic_commits=True
    ),
    "a short log": Scope((opened(11, 12, 13, 14, window=2),), replicas=1, max_log_steps=2, due_steps=8, timeouts=1),
    "a short memory": Scope((opened(11, 12, 13),), fall_backs=1, depth=3, buffer_steps=1, atomic_commits=True),
    "3 steps, window 1, up to 3 commits lost": Scope((opened(11, 12, 13),), fall_backs=1, depth=3),
    "3 steps, window 1, silent, other checkpoints": Scope(
        (opened(11, 12, 13),), unknowns=1, timeouts=1, due_steps=2, other_due_steps=1
    ),
}
