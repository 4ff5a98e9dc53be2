"""The rules of the protocol in the new core. Its one path needs no second set of them."""

from __future__ import annotations

from dataclasses import replace

from . import core_switches as off
from .rules import RULES, Rule
from .scope import Open, Scope, steps

SWITCHES = {
    "1": off.head_of_requests,
    "6a": off.unknown_is_not_committed,
    "6b": off.unknown_is_not_failed,
    "7": off.store_decides_rejections,
    "8": off.duplicates_wait_for_commits,
    "13": off.state_is_kept_until_acked,
}

ONE_PATH = (
    Rule(
        "8b",
        "a chunk's reply leaves after its commit only",
        off.replies_wait_for_commits,
        Scope(((Open("s"), steps("s", 11, 12)),), replicas=1, core=True),
    ),
    Rule(
        "14",
        "a chunk does not make the log longer than its limit",
        off.the_log_is_bounded,
        Scope(((Open("s"), steps("s", 11, 12, 13)),), replicas=1, max_log_steps=2, due_steps=8, core=True),
    ),
    Rule(
        "15",
        "one request of a session is computed at a time",
        off.one_is_computed_at_a_time,
        Scope(((Open("s"), steps("s", 11, 12, window=2)),), replicas=1, core=True),
    ),
    Rule(
        "16",
        "what is decided on the record waits for the session's own commits",
        off.decisions_wait_for_commits,
        Scope(
            ((Open("s"), steps("s", 11, 12, 13, 14, window=2)),),
            replicas=1,
            max_log_steps=2,
            due_steps=8,
            timeouts=1,
            core=True,
        ),
    ),
    Rule(
        "17",
        "a session is not evicted while it has something to do",
        off.busy_sessions_stay_cached,
        Scope(((Open("s"), steps("s", 11, 12)), (Open("r"), steps("r", 21, 22))), replicas=1, slots=1, core=True),
    ),
    Rule(
        "19",
        "what a batch computed of a state that was dropped meanwhile does not count",
        off.late_batches_are_thrown_away,
        Scope(((Open("s"), steps("s", 11, 12, window=2)),), replicas=1, unknowns=1, core=True),
    ),
)

CORE_RULES = (
    *(
        replace(rule, off=SWITCHES.get(rule.number, rule.off), scope=replace(rule.scope, core=True))
        for rule in RULES
        if not rule.number.endswith("s")
    ),
    *ONE_PATH,
)
