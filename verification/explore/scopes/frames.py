"""Frames of several sessions, and groups of sessions."""

from __future__ import annotations

from ..scope import Scope
from .scripts import GROUPED, TWO_SESSIONS

SMALL = {
    "2 sessions in frames": Scope(TWO_SESSIONS, replicas=1, frames=True),
    "2 sessions in frames on 1 slot": Scope(TWO_SESSIONS, replicas=1, slots=1, atomic_commits=True, frames=True),
    "a group of 2, a reply lost": Scope((GROUPED,), replicas=1, timeouts=1, atomic_commits=True, frames=True),
    "a group of 2, its caller stops waiting": Scope(
        (GROUPED,), replicas=1, give_ups=1, atomic_commits=True, frames=True
    ),
    "a group of 2, a commit lost": Scope((GROUPED,), replicas=1, fall_backs=1, atomic_commits=True, frames=True),
}

LARGE = {
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
