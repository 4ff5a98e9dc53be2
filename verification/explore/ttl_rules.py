"""The rules of TTLs in Redis, which power cuts require. See rules.py and docs/adr/203."""

from __future__ import annotations

from . import ttl_switches
from .events import Event
from .rule import Rule
from .scope import Open, Scope, steps

KEPT_FOR_EVER = ((Open("s", 1000),), (Open("s", 0),))

# A cut costs the record its TTL; another leaves the refresh of the next commit behind.
WITH_A_REFRESH_LEFT: tuple[Event, ...] = (
    ("send", 0, "open s with a TTL of 1000 ms", "A"),
    ("loaded", "A", 0),
    ("apply", "A", 0),
    ("power_cut", 1, -1),
    ("loaded", "A", 0),
    ("receive", 0, "open s with a TTL of 1000 ms"),
    ("send", 0, "s[0]=11", "A"),
    ("loaded", "A", 0),
    ("compute", "A"),
    ("apply", "A", 0),
    ("power_cut", 1, 2),
)

TTLS = (
    Rule(
        "24a",
        "A TTL is removed before the commit that takes it away",
        "The commit and the removal are separate calls, and a power cut may lose the second of them. A record may lose "
        "its TTL too early, but does not keep one that its header does not ask for.",
        ttl_switches.ttls_are_removed_first,
        Scope(KEPT_FOR_EVER, replicas=1, power_cuts=1, synced=False, depth=3, atomic_commits=True),
    ),
    Rule(
        "24b",
        "A TTL is removed by two writes",
        "A TTL is set before it is removed, so that the removal is in the append-only file even if the record had lost "
        "its TTL. Otherwise an old refresh that a power cut left in the file sets it again.",
        ttl_switches.ttls_are_removed_by_two_writes,
        Scope(((Open("s", 1000), steps("s", 11)), (Open("s", 0),)), power_cuts=3, due_steps=4),
        WITH_A_REFRESH_LEFT,
    ),
    Rule(
        "24c",
        "The TTL of a new record is not set in the transaction of its push",
        "It is set by a separate call with a single write. Part of a transaction may be executed after a restart, when "
        "the record may be another one that is to be kept for ever.",
        ttl_switches.ttls_are_set_alone,
        Scope(KEPT_FOR_EVER, replicas=1, power_cuts=2),
    ),
)
