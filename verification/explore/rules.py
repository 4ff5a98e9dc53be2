"""The rules of the protocol, each with its switch and a scope in which its absence shows."""

from __future__ import annotations

from . import client_switches, switches
from .bulk_rules import BULK
from .generation_rules import GENERATIONS
from .lifetime_rules import EXPIRY, VERSIONS
from .redis_rules import IN_REDIS
from .rule import Rule
from .scope import Append, Delete, Follow, Fork, Open, Reset, Scope, Start, steps
from .serving_rules import DEADLINES, READS
from .ttl_rules import TTLS

PROTOCOL = (
    Rule(
        "1",
        "A request's head is compared with the session's",
        "A chunk names the history that it continues by step number and head, a hash of all earlier inputs. It is "
        "applied only if both match the session's, so that a chunk never continues another client's steps.",
        switches.head_of_requests,
        Scope(((Open("s"), steps("s", 11, 12, window=2)), (Open("s"), steps("s", 21))), replicas=1, slow=1),
    ),
    Rule(
        "2",
        "The head is part of the store's compare-and-set",
        "A commit succeeds only on a record with the head that it was computed from. Two replicas that computed "
        "different steps from the same step number cannot both commit.",
        switches.head_in_the_store,
        Scope(((Open("s"), steps("s", 11, 12)), (Append("s", 21),)), fall_backs=1, atomic_commits=True),
    ),
    Rule(
        "3a",
        "The generation is part of the store's compare-and-set",
        "A commit succeeds only on a record of the generation that it was computed in. A late commit of a deleted "
        "session does not change the session that was created after it, even if both had consumed the same inputs.",
        switches.generation_in_the_store,
        Scope(((Open("s"), Fork("s", "t"), steps("t", 11), Delete("t"), Fork("s", "t")),), unknowns=1),
    ),
    Rule(
        "3b",
        "The whole header is part of the store's compare-and-set",
        "The position alone is not enough: a record at the same position may have its checkpoint elsewhere, and a "
        "commit that appends to the log relies on where the log begins.",
        switches.header_in_the_store,
        Scope(
            ((Open("s"), steps("s", 11, 12, 13)),), fall_backs=1, due_steps=4, other_due_steps=1, atomic_commits=True
        ),
    ),
    Rule(
        "4",
        "A checkpoint waits for `acked`",
        "A checkpoint drops the log before it, so it is written only once the client holds the replies up to that "
        "point. The reply to a step that is no longer in the log cannot be computed again.",
        switches.checkpoint_waits_for_acks,
        Scope(((Open("s"), steps("s", 11, 12, window=2)),), replicas=1, timeouts=1),
    ),
    Rule(
        "5",
        "`acked` covers every earlier reply",
        "A client that has received a later reply but misses an earlier one acknowledges only the steps before the "
        "gap.",
        client_switches.acks_without_holes,
        Scope(((Open("s"), steps("s", 11, 12, 13, window=3)),), replicas=1, timeouts=1),
    ),
    Rule(
        "6a",
        "A commit with an unknown outcome does not count as committed",
        "If the store's answer is lost, the request is decided again on the record instead of being answered as done.",
        switches.unknown_is_not_committed,
        Scope(((Open("s"), steps("s", 11)),), unknowns=1),
    ),
    Rule(
        "6b",
        "A commit with an unknown outcome does not count as refused",
        "The commit may have been executed. A step without a position is therefore answered with OUTCOME_UNKNOWN, and "
        "not with a reason for which a client sends it again.",
        switches.unknown_is_not_failed,
        Scope(((Open("s"), Append("s", 11)),), unknowns=1),
    ),
    Rule(
        "7",
        "Rejections are decided on the store's record",
        "A cached state may be stale because another replica has served the session since. A chunk that does not "
        "continue the cached state is decided on a record that was read after the chunk arrived.",
        switches.store_decides_rejections,
        Scope(((Open("s"), steps("s", 11), Reset("s"), steps("s", 12)),)),
    ),
    Rule(
        "8a",
        "A duplicate is answered after the session's own commits",
        "A chunk that is computed but not yet committed may still be lost. Its duplicate waits for the outcome.",
        switches.duplicates_wait_for_commits,
        Scope(((Open("s"), steps("s", 11)),), timeouts=1),
    ),
    Rule(
        "8b",
        "A reply leaves after its commit",
        "What a client was told is durable: no reply leaves before the store has accepted what it reports.",
        switches.replies_wait_for_commits,
        Scope(((Open("s"), steps("s", 11, 12)),), replicas=1),
    ),
    Rule(
        "9",
        "Generations are minted by the server",
        "Each creation gets a generation of its own. If clients chose the generation, a delayed copy of a request "
        "could bring back the generation of a session that has been deleted since.",
        switches.server_mints_generations,
        Scope(((Open("s"), Delete("s")),), slow=1, timeouts=1),
    ),
    Rule(
        "10a",
        "Reset names its generation",
        "A reset applies only to the generation that its sender knows. A delayed copy does not reset the session a "
        "second time.",
        switches.reset_names_its_generation,
        Scope(((Open("s"), Reset("s"), Reset("s"), steps("s", 11)),), slow=1, timeouts=1),
    ),
    Rule(
        "10b",
        "Delete names its generation",
        "A delete applies only to the generation that its sender knows. A delayed copy does not delete the session "
        "that was created after it.",
        switches.delete_names_its_generation,
        Scope(((Open("s"), Delete("s"), Open("s"), steps("s", 11)),), slow=1, timeouts=1),
    ),
    Rule(
        "11",
        "The client replays only on its own history",
        "After the store has lost commits, a client sends its steps again from the record's position, but only if it "
        "went through that position itself.",
        client_switches.client_replays_on_its_own_history,
        Scope(
            ((Open("s"), steps("s", (11, 12), 13)), (Open("s"), steps("s", 21))),
            replicas=1,
            fall_backs=1,
            atomic_commits=True,
        ),
    ),
    Rule(
        "12",
        "STEP_COMPACTED is harmless if the client holds the reply",
        "A chunk that is sent again may find that the record's log no longer contains it. A client that already holds "
        "the reply treats that as success.",
        client_switches.compacted_is_harmless_when_held,
        Scope(((Open("s"), steps("s", 11, 12, 13, window=2)),), replicas=1, fall_backs=1, timeouts=1),
    ),
    Rule(
        "13",
        "A state is kept at a chunk boundary until the acknowledgements have passed it",
        "With several chunks in flight, the acknowledgements always lag behind. The state for a checkpoint is kept "
        "until they reach it; otherwise no checkpoint would ever be written, and the log would only grow.",
        switches.state_is_kept_until_acked,
        Scope(((Open("s"), steps("s", 11, 12, 13, 14, 15, 16, 17, 18, window=2)),), replicas=1, steady=4),
    ),
    Rule(
        "14",
        "A chunk does not make the log longer than its limit",
        "If the log has no room, a checkpoint is written first, or the chunk is rejected with ACK_BEHIND.",
        switches.the_log_is_bounded,
        Scope(((Open("s"), steps("s", 11, 12, 13)),), replicas=1, max_log_steps=2, due_steps=8),
    ),
    Rule(
        "15",
        "One request of a session is computed at a time",
        "A session has one state: the next chunk starts where the previous one ended.",
        switches.one_is_computed_at_a_time,
        Scope(((Open("s"), steps("s", 11, 12, window=2)),), replicas=1),
    ),
    Rule(
        "16",
        "Decisions on the record wait for the session's own commits",
        "A record that is read while a commit is in flight may or may not include that commit. A decision on the "
        "record waits until the session has nothing uncommitted.",
        switches.decisions_wait_for_commits,
        Scope(
            ((Open("s"), steps("s", 11, 12, 13, 14, window=2)),), replicas=1, max_log_steps=2, due_steps=8, timeouts=1
        ),
    ),
    Rule(
        "17a",
        "A session is not evicted while it has work",
        "Only the state of an idle session leaves the cache. Results that are computed but not committed exist nowhere "
        "else.",
        switches.busy_sessions_stay_cached,
        Scope(((Open("s"), steps("s", 11, 12)), (Open("r"), steps("r", 21, 22))), replicas=1, slots=1),
    ),
    Rule(
        "17b",
        "Results of a batch on a dropped state do not count",
        "A failed commit drops the cached state, and its requests start again from the record. The results of a batch "
        "that was still computing on the dropped state are ignored.",
        switches.late_batches_are_thrown_away,
        Scope(((Open("s"), steps("s", 11, 12, window=2)),), replicas=1, unknowns=1),
    ),
    Rule(
        "19",
        "A repeated start is recognised",
        "The first step of a sequence starts its session anew without naming a generation, so the record keeps an "
        "origin made from the start. A delayed copy of it is answered from the log, and does not start the session "
        "again.",
        switches.starts_are_recognized,
        Scope(((Start("s", 11), Follow("s", 12, 1)),), slow=1, timeouts=1),
    ),
)

RULES = (*PROTOCOL, *IN_REDIS, *READS, *DEADLINES, *EXPIRY, *VERSIONS, *TTLS, *GENERATIONS, *BULK)
