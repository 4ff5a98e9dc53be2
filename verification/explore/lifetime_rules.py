"""The rules of how sessions expire, and move to another version of the model. See rules.py."""

from __future__ import annotations

from . import lifetime_switches
from .rule import Rule
from .scope import GetState, Open, Scope, steps

EXPIRY = (
    Rule(
        "22a",
        "A step with a position creates nothing",
        "If the session has expired, a step with a position is answered with SESSION_NOT_FOUND. A session that began "
        "anew would answer it from another state than its sender expects.",
        lifetime_switches.a_position_creates_nothing,
        Scope(((Open("s"), steps("s", 11)),), replicas=1, expiries=1),
    ),
    Rule(
        "22b",
        "A read is use of the session",
        "A read of the record for a peek, a forecast or GetState refreshes the TTL, as a step does. A session that is "
        "read does not expire.",
        lifetime_switches.reads_are_use,
        Scope(((Open("s"), GetState("s")),), replicas=1, expiries=1),
    ),
    Rule(
        "22c",
        "A commit needs the record that it continues",
        "If the session expires while a step is computed, the step's commit fails, even if it carries a checkpoint "
        "from which the record could be written anew. What has expired does not come back.",
        lifetime_switches.commits_need_their_record,
        Scope(((Open("s"), steps("s", 11, 12)),), replicas=1, expiries=1, atomic_commits=True),
    ),
)
