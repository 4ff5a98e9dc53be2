"""The rules of the lists in Redis, which power cuts require. See rules.py and docs/adr/203."""

from __future__ import annotations

from . import redis_switches
from .events import Event
from .rule import Rule
from .scope import Delete, Open, Reset, Scope, steps

RECREATED = ((Open("s"), steps("s", 11), Delete("s"), Open("s"), steps("s", 12)),)

# The first write of a connection is a whole transaction, of which a cut may leave a part.
CUT_AFTER_A_RESTART: tuple[Event, ...] = (
    ("send", 0, "open s", "A"),
    ("loaded", "A", 0),
    ("apply", "A", 0),
    ("answered", "A", 0),
    ("receive", 0, "open s"),
    ("power_cut", 0, -1),
    ("send", 0, "s[0]=11", "A"),
    ("compute", "A"),
    ("apply", "A", 0),
    ("power_cut", 1, 1),
)

IN_REDIS = (
    Rule(
        "18a",
        "A record's list in Redis only grows",
        "A commit pushes to the list and changes nothing that is already in it. After a power cut, Redis may execute "
        "part of an old transaction again, and a change in place would then hit a list for which it was not made.",
        redis_switches.lists_only_grow,
        Scope(((Open("s"), steps("s", 11, 12)),), replicas=1, power_cuts=2),
    ),
    Rule(
        "18b",
        "Superseded entries are skipped",
        "A commit that a power cut left half written may come back after a restart, next to the commit that replaced "
        "it. A reader follows only the entries that lead from the last one back to its base.",
        redis_switches.superseded_entries_are_skipped,
        Scope(((Open("s"), steps("s", 11)), (Open("r"),)), replicas=1, power_cuts=3),
        CUT_AFTER_A_RESTART,
    ),
    Rule(
        "18c",
        "A trim is not in the transaction of its push",
        "A trim is a separate call after the push. Part of a transaction may be executed after a restart, and a trim "
        "without its push would remove entries that still count.",
        redis_switches.trims_are_alone,
        Scope(
            ((Open("s"), Reset("s")), (Open("s"), steps("s", 21))),
            replicas=1,
            power_cuts=2,
            synced=False,
            due_steps=4,
        ),
    ),
    Rule(
        "18d",
        "A delete is not in a transaction",
        "A delete is a separate call with a single write, which Redis does not wrap in a transaction. A power cut "
        "therefore never leaves a delete in the file that is executed later.",
        redis_switches.deletes_are_alone,
        Scope(RECREATED, replicas=1, power_cuts=2, synced=False, depth=2, due_steps=4),
    ),
    Rule(
        "18e",
        "A connection's first write is a whole transaction",
        "Its EXEC ends a transaction that a power cut left open in the append-only file. Otherwise the next restart "
        "drops everything after that MULTI, including acknowledged commits.",
        redis_switches.first_write_is_a_transaction,
        Scope(RECREATED, replicas=1, power_cuts=2, synced=False, depth=2, due_steps=4),
    ),
    Rule(
        "18f",
        "An entry names its base",
        "An entry carries a mark of its base, and not only the number of elements back to it. That distance changes "
        "when an entry is pushed again, and when a power cut removes or brings back entries.",
        redis_switches.links_name_their_base,
        Scope(
            ((Open("s"), steps("s", 11), Reset("s"), Open("s"), steps("s", 12)),),
            replicas=1,
            power_cuts=2,
            synced=False,
        ),
    ),
    Rule(
        "18g",
        "What an earlier run of Redis wrote is written again before anyone is told of it",
        "What is read after a restart of Redis is pushed once more in the new run, and only then is anyone told of it. "
        "What was told therefore wins over whatever a power cut left in the file.",
        redis_switches.what_is_read_is_said_again,
        Scope(((Open("s"), steps("s", 11)), (Open("r"),)), replicas=1, power_cuts=3),
        CUT_AFTER_A_RESTART,
    ),
    Rule(
        "18h",
        "A trim keeps only a base of its own run",
        "A trim that a power cut left in the file is executed after the next restart. That is harmless only if "
        "everything from its base on was pushed in the same run of Redis.",
        redis_switches.trims_keep_what_their_run_pushed,
        Scope(((Open("s"), steps("s", 11, 12, 13, window=2)),), replicas=2, power_cuts=3, due_steps=1, timeouts=1),
        (
            ("send", 0, "open s", "A"),
            ("loaded", "A", 0),
            ("apply", "A", 0),
            ("answered", "A", 0),
            ("receive", 0, "open s"),
            ("send", 0, "s[0]=11", "A"),
            ("compute", "A"),
            ("apply", "A", 0),
            ("answered", "A", 0),
            ("receive", 0, "s[0]=11"),
            ("send", 0, "s[1]=12", "A"),
            ("compute", "A"),
            ("timeout", 0, "s[1]=12"),
            ("send", 0, "s[1]=12", "B"),
            ("loaded", "B", 0),
            ("compute", "B"),
            ("compute", "B"),
            ("apply", "A", 0),
            ("answered", "A", 0),
            ("power_cut", 0, -1),
        ),
    ),
)
