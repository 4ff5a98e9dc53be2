"""Generations that begin and end: resets, deletes, forks, steps without a position, sequences."""

from __future__ import annotations

from ..scope import Append, Follow, Scope, Start
from .scripts import FORKED, RECREATED, SEQUENCE, TWO_STEPS_EACH, opened

SMALL = {
    "reset, delete, re-open": Scope((RECREATED,)),
    "fork": Scope((FORKED,)),
    "1 append, the store silent": Scope(((*opened(11), Append("s", 12)),), unknowns=1),
    "a sequence of 3 steps, the store silent twice": Scope((SEQUENCE,), unknowns=2, atomic_commits=True),
    "a sequence of 3 steps, a reply lost, a request late": Scope((SEQUENCE,), timeouts=1, slow=1, atomic_commits=True),
    "2 sequences of one session, the store silent": Scope(
        ((*SEQUENCE[:2], Start("s", 21), Follow("s", 22, 1)),), unknowns=1, atomic_commits=True
    ),
    "reset, delete, re-open, 2 steps each": Scope((TWO_STEPS_EACH,), atomic_commits=True),
    "2 steps and an append, the store silent": Scope(
        ((*opened(11, 12), Append("s", 13)),), unknowns=1, atomic_commits=True
    ),
}

LARGE = {
    "reset, delete, re-open, slow copies": Scope((RECREATED,), slow=1, timeouts=1, atomic_commits=True),
    "reset, delete, re-open, the store silent twice": Scope((RECREATED,), unknowns=2),
    "reset, delete, re-open, a tail lost": Scope((RECREATED,), fall_backs=1, depth=2),
    "reset, delete, re-open, a crash": Scope((RECREATED,), crashes=1, unknowns=1, atomic_commits=True),
    "fork, slow copies": Scope((FORKED,), slow=1, timeouts=1, atomic_commits=True),
    "fork, the store silent": Scope((FORKED,), unknowns=1, timeouts=1, atomic_commits=True),
    "fork, a tail of one record lost": Scope((FORKED,), fall_backs=1, depth=2, atomic_commits=True),
    "reset, delete, re-open, 2 steps each, the store silent": Scope((TWO_STEPS_EACH,), unknowns=1, timeouts=1),
    "reset, delete, re-open, 2 steps each, slow copies": Scope(
        (TWO_STEPS_EACH,), slow=1, timeouts=1, atomic_commits=True
    ),
}
