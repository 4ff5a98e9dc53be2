"""The rules of reads, and of requests that nobody waits for any more. See rules.py."""

from __future__ import annotations

from . import deadline_switches, read_switches
from .rule import Rule
from .scope import Append, GetState, Open, Peek, Scope, steps

READS = (
    Rule(
        "20a",
        "A peek changes nothing",
        "A peek or a forecast computes beside the session's state. The next step starts from the state that the peek "
        "started from.",
        read_switches.peeks_change_nothing,
        Scope(((Open("s"), Peek("s", 91), steps("s", 11)),), replicas=1),
    ),
    Rule(
        "20b",
        "Reads are decided on the store's record",
        "A cached state may be stale because another replica has served the session since. A peek, a forecast and "
        "GetState are answered from a record that was read after they arrived.",
        read_switches.reads_ask_the_store,
        Scope(((Open("s"), steps("s", 11), GetState("s")),)),
    ),
    Rule(
        "20c",
        "Reads wait for the session's own commits",
        "A state that is computed but not committed may still be lost. A read shows only what is committed.",
        read_switches.reads_wait_for_commits,
        Scope(((Open("s"), steps("s", 11)), (GetState("s"),)), replicas=1),
    ),
)

DEADLINES = (
    Rule(
        "21a",
        "Nothing is sent to the store after its deadline",
        "A chunk whose deadline passes while it waits for the commit before it is not committed. Its sender may have "
        "gone on without it.",
        deadline_switches.nothing_is_sent_late,
        Scope(((Open("s"), steps("s", 11, 12, window=2)),), replicas=1, overdue=1),
    ),
    Rule(
        "21b",
        "What was computed after a late chunk is decided again",
        "Chunks that were computed after a chunk that is not committed are decided again on the record. They continue "
        "a history that the store does not have.",
        deadline_switches.what_follows_a_late_chunk_is_decided_again,
        Scope(((Open("s"), steps("s", 11, 12, 13, window=3)),), replicas=1, overdue=1, atomic_commits=True),
    ),
    Rule(
        "21c",
        "A reading that nobody waits for ends",
        "If all requests that wait for a record end before it is read, the session waits for it no longer, and its "
        "next request asks for it again.",
        deadline_switches.readings_of_nobody_end,
        Scope(((Open("s"),), (Open("r"),)), replicas=1, overdue=1, one_call=True),
    ),
    Rule(
        "21d",
        "A new generation ends with the request that made it",
        "If the first chunk of a new generation is ended before it is computed, the generation is forgotten. No record "
        "will ever have it.",
        deadline_switches.new_generations_end_with_their_request,
        Scope(((Append("s", 11),), (Append("r", 21),)), replicas=1, gone=1, atomic_commits=True),
    ),
)
