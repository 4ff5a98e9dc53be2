"""The rules of the protocol, each with its switch and a scope in which its absence shows."""

from __future__ import annotations

from dataclasses import dataclass

from . import redis_switches, short_switches, switches
from .events import Event
from .scope import Append, Delete, Fork, Open, Reset, Scope, steps
from .switches import Switch


@dataclass(frozen=True)
class Rule:
    """off: switches it off while it is entered. scope: where that is found out. begin: how its histories begin, where
    there are too many to go through all of them."""

    number: str
    text: str
    off: Switch
    scope: Scope
    begin: tuple[Event, ...] = ()


TWO_ON_ONE = ((Open("s"), steps("s", 11, 12, window=2)), (Open("s"), steps("s", 21)))

# In the short way alone: the long one keeps each of them. A session's first step is never an item of it.
SHORT_WAY = (
    Rule(
        "1s",
        "a head is compared with the item's",
        short_switches.head_of_requests,
        Scope(
            ((Open("s"), steps("s", 11, 12, 13, window=2)), (Open("s"), steps("s", 21))),
            replicas=1,
            slow=1,
            due_steps=4,
            atomic_commits=True,
            short=True,
        ),
    ),
    Rule(
        "3bs",
        "the whole header is in an item's compare-and-set",
        switches.header_in_the_store,
        Scope(
            ((Open("s"), steps("s", 11, 12, 13)),),
            fall_backs=1,
            due_steps=4,
            other_due_steps=1,
            atomic_commits=True,
            short=True,
        ),
    ),
    Rule(
        "4s",
        "an item's checkpoint is held back by `acked`",
        short_switches.checkpoint_waits_for_acks,
        Scope(((Open("s"), steps("s", 11, 12, 13, window=2)),), replicas=1, timeouts=1, due_steps=2, short=True),
    ),
    Rule(
        "6s",
        "unknown is not committed, of an item",
        short_switches.unknown_is_not_committed,
        Scope(((Open("s"), steps("s", 11, 12)),), unknowns=1, short=True),
    ),
    Rule(
        "7s",
        "an item that does not fit the hot copy is decided on the store's record",
        short_switches.store_decides_rejections,
        Scope(((Open("s"), steps("s", 11), Reset("s"), steps("s", 12)),), short=True),
    ),
    Rule(
        "8s",
        "items are answered after their commits only",
        short_switches.replies_wait_for_commits,
        Scope(((Open("s"), steps("s", 11, 12)),), replicas=1, short=True),
    ),
    Rule(
        "14s",
        "an item does not make the log longer than its limit",
        short_switches.the_log_is_bounded,
        Scope(((Open("s"), steps("s", 11, 12, 13)),), replicas=1, max_log_steps=2, due_steps=8, short=True),
    ),
    Rule(
        "15s",
        "one item of a session at a time",
        short_switches.one_item_of_a_session,
        Scope(((Open("s"), steps("s", 11, 12)),), replicas=1, timeouts=1, short=True),
    ),
    Rule(
        "16s",
        "what is behind an item waits until it has landed",
        short_switches.requests_wait_for_items,
        Scope(((Open("s"), steps("s", 11, 12)),), replicas=1, timeouts=1, short=True),
    ),
    Rule(
        "17s",
        "a session is not evicted while an item of it is on its way",
        short_switches.sessions_stay_hot,
        Scope(((Open("s"), steps("s", 11, 12)), (Open("r"), steps("r", 21, 22))), replicas=1, slots=1, short=True),
    ),
)

LIVES = ((Open("s"), steps("s", 11), Delete("s"), Open("s"), steps("s", 12)),)

# The first write of a connection is a whole transaction, which a cut may leave a part of.
CUT_AFTER_A_RESTART: tuple[Event, ...] = (
    ("send", 0, "open s", "A"),
    ("loaded", "A", 0),
    ("land", "A", 0),
    ("landed", "A", 0),
    ("hear", 0, "open s"),
    ("power_cut", 0, -1),
    ("send", 0, "s[0]=11", "A"),
    ("compute", "A"),
    ("land", "A", 0),
    ("power_cut", 1, 1),
)

# What a power cut needs of the lists in Redis.
IN_REDIS = (
    Rule(
        "18a",
        "a record's list in Redis only grows",
        redis_switches.lists_only_grow,
        Scope(((Open("s"), steps("s", 11, 12)),), replicas=1, power_cuts=2),
    ),
    Rule(
        "18b",
        "entries that were superseded are skipped",
        redis_switches.superseded_entries_are_skipped,
        Scope(((Open("s"), steps("s", 11)), (Open("r"),)), replicas=1, power_cuts=3),
        CUT_AFTER_A_RESTART,
    ),
    Rule(
        "18c",
        "a trim is not in the transaction of its push",
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
        "a delete is in no transaction",
        redis_switches.deletes_are_alone,
        Scope(LIVES, replicas=1, power_cuts=2, synced=False, depth=2, due_steps=4),
    ),
    Rule(
        "18e",
        "a connection's first write is a whole transaction",
        redis_switches.first_write_is_a_transaction,
        Scope(LIVES, replicas=1, power_cuts=2, synced=False, depth=2, due_steps=4),
    ),
    Rule(
        "18f",
        "an entry names its base, and does not only say how far away that is",
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
        "what was written in another run of Redis is said again before anybody is told of it",
        redis_switches.what_is_read_is_said_again,
        Scope(((Open("s"), steps("s", 11)), (Open("r"),)), replicas=1, power_cuts=3),
        CUT_AFTER_A_RESTART,
    ),
    Rule(
        "18h",
        "a trim keeps a base of its own run only",
        redis_switches.trims_keep_what_their_run_pushed,
        Scope(((Open("s"), steps("s", 11, 12, 13, window=2)),), replicas=2, power_cuts=3, due_steps=1, timeouts=1),
        (
            ("send", 0, "open s", "A"),
            ("loaded", "A", 0),
            ("land", "A", 0),
            ("landed", "A", 0),
            ("hear", 0, "open s"),
            ("send", 0, "s[0]=11", "A"),
            ("compute", "A"),
            ("land", "A", 0),
            ("landed", "A", 0),
            ("hear", 0, "s[0]=11"),
            ("send", 0, "s[1]=12", "A"),
            ("compute", "A"),
            ("timeout", 0, "s[1]=12"),
            ("send", 0, "s[1]=12", "B"),
            ("loaded", "B", 0),
            ("compute", "B"),
            ("compute", "B"),
            ("land", "A", 0),
            ("landed", "A", 0),
            ("power_cut", 0, -1),
        ),
    ),
)

RULES = (
    Rule(
        "1", "a head is compared with the request's", switches.head_of_requests, Scope(TWO_ON_ONE, replicas=1, slow=1)
    ),
    Rule(
        "2",
        "the head is in the store's compare-and-set",
        switches.head_in_the_store,
        Scope(((Open("s"), steps("s", 11, 12)), (Append("s", 21),)), fall_backs=1, atomic_commits=True),
    ),
    Rule(
        "3",
        "the generation is in the store's compare-and-set",
        switches.generation_in_the_store,
        Scope(((Open("s"), Fork("s", "t"), steps("t", 11), Delete("t"), Fork("s", "t")),), unknowns=1),
    ),
    Rule(
        "3b",
        "the whole header, not only the position, is in the compare-and-set",
        switches.header_in_the_store,
        Scope(
            ((Open("s"), steps("s", 11, 12, 13)),), fall_backs=1, due_steps=4, other_due_steps=1, atomic_commits=True
        ),
    ),
    Rule(
        "4",
        "a checkpoint is held back by `acked`",
        switches.checkpoint_waits_for_acks,
        Scope(((Open("s"), steps("s", 11, 12, window=2)),), replicas=1, timeouts=1),
    ),
    Rule(
        "5",
        "`acked` means every reply up to there",
        switches.acks_without_holes,
        Scope(((Open("s"), steps("s", 11, 12, 13, window=3)),), replicas=1, timeouts=1),
    ),
    Rule(
        "6a",
        "unknown is not committed",
        switches.unknown_is_not_committed,
        Scope(((Open("s"), steps("s", 11)),), unknowns=1),
    ),
    Rule(
        "6b",
        "unknown is not failed",
        switches.unknown_is_not_failed,
        Scope(((Open("s"), Append("s", 11)),), unknowns=1),
    ),
    Rule(
        "7",
        "rejections are decided on the store's record",
        switches.store_decides_rejections,
        Scope(((Open("s"), steps("s", 11), Reset("s"), steps("s", 12)),)),
    ),
    Rule(
        "8",
        "duplicates are answered after the session's own commits only",
        switches.duplicates_wait_for_commits,
        Scope(((Open("s"), steps("s", 11)),), timeouts=1),
    ),
    Rule(
        "9",
        "generations are minted by the server",
        switches.server_mints_generations,
        Scope(((Open("s"), Delete("s")),), slow=1, timeouts=1),
    ),
    Rule(
        "10a",
        "Reset names its generation",
        switches.reset_names_its_generation,
        Scope(((Open("s"), Reset("s"), Reset("s"), steps("s", 11)),), slow=1, timeouts=1),
    ),
    Rule(
        "10b",
        "Delete names its generation",
        switches.delete_names_its_generation,
        Scope(((Open("s"), Delete("s"), Open("s"), steps("s", 11)),), slow=1, timeouts=1),
    ),
    Rule(
        "11",
        "the client replays on its own history only",
        switches.client_replays_on_its_own_history,
        Scope(
            ((Open("s"), steps("s", (11, 12), 13)), (Open("s"), steps("s", 21))),
            replicas=1,
            fall_backs=1,
            atomic_commits=True,
        ),
    ),
    Rule(
        "12",
        "a held reply makes STEP_COMPACTED harmless",
        switches.compacted_is_harmless_when_held,
        Scope(((Open("s"), steps("s", 11, 12, 13, window=2)),), replicas=1, fall_backs=1, timeouts=1),
    ),
    Rule(
        "13",
        "a state is kept at a chunk's boundary until the acks have passed it",
        switches.state_is_kept_until_acked,
        Scope(((Open("s"), steps("s", 11, 12, 13, 14, 15, 16, 17, 18, window=2)),), replicas=1, steady=4),
    ),
    *SHORT_WAY,
    *IN_REDIS,
)
