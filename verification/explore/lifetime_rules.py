"""The rules of how sessions expire, and move to another version of the model. See rules.py."""

from __future__ import annotations

from . import lifetime_switches
from .rule import Rule
from .scope import CarryOver, GetState, Open, Scope, steps

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

BOTH_AND_NEW = (b"\1\2", b"\2")  # what the replicas serve while a new version is rolled out

VERSIONS = (
    Rule(
        "23a",
        "A record is continued by its own version",
        "A replica that serves two versions continues each session with the version that made its state, and refuses "
        "sessions of a version that it does not serve. Another version would make other outputs of the same state.",
        lifetime_switches.the_record_picks_its_version,
        Scope(((Open("s"), steps("s", 11, 12)),), serves=BOTH_AND_NEW, atomic_commits=True),
    ),
    Rule(
        "23b",
        "A carry-over makes a generation",
        "What follows a carry-over is computed by another version, so it has positions of its own. A chunk that was "
        "computed before it, and is sent again, is told that the generation has changed.",
        lifetime_switches.carry_overs_make_a_generation,
        Scope(
            ((Open("s"), steps("s", 11), CarryOver("s", 2), steps("s", 12)),),
            replicas=1,
            serves=BOTH_AND_NEW,
            atomic_commits=True,
        ),
    ),
    Rule(
        "23c",
        "A version that is not served any more starts nothing",
        "When a replica exchanges its versions, it finishes what is under way, and refuses what arrives later for the "
        "old one, even if the session's state is still cached.",
        lifetime_switches.retired_versions_start_nothing,
        Scope(((Open("s"), steps("s", 11)),), replicas=1, others=(b"\2",), exchanges=1, atomic_commits=True),
    ),
    Rule(
        "23d",
        "A state that is carried over is that of the position",
        "A record has the state at its checkpoint, and the inputs since. To keep the state, the old version computes "
        "these inputs first.",
        lifetime_switches.kept_states_include_the_log,
        Scope(((Open("s"), steps("s", 11), CarryOver("s", 2)),), replicas=1, serves=BOTH_AND_NEW, due_steps=4),
    ),
    Rule(
        "23e",
        "A session of the new version is not carried over again",
        "Carrying many sessions over may be repeated after some of it has failed. Those that belong to the new version "
        "stay as they are, whatever the policy.",
        lifetime_switches.carried_sessions_stay,
        Scope(
            ((Open("s"), CarryOver("s", 2, reset=True), steps("s", 11), CarryOver("s", 2, reset=True)),),
            replicas=1,
            serves=BOTH_AND_NEW,
        ),
    ),
    Rule(
        "23f",
        "A state from before a lost step is not kept",
        "To keep the state, the client names the position that it knows. If the store has lost steps before it, the "
        "client is told, and can replay them. The new generation's heads would not show that anything is missing.",
        lifetime_switches.kept_states_are_not_behind,
        Scope(((Open("s"), steps("s", 11), CarryOver("s", 2)),), replicas=1, serves=BOTH_AND_NEW, fall_backs=1),
    ),
)
