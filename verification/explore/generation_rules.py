"""The rules of calls that make a generation. See rules.py."""

from __future__ import annotations

from . import generation_switches
from .rule import Rule
from .scope import TTL_MS, Open, Scope, SetState, steps

GENERATIONS = (
    Rule(
        "25a",
        "A call that makes a generation is recognized when it is sent again",
        "The record keeps an origin made from the call's request id. A call whose reply was lost finds its own origin "
        "when it is sent again, and succeeds, although the generation that it names has ended.",
        generation_switches.calls_are_recognized,
        Scope(((Open("s"), SetState("s", (81,))),), replicas=1, timeouts=1),
    ),
    Rule(
        "25b",
        "SetState names its generation",
        "A state is set only in place of the generation that its sender knows. A delayed copy does not set it again "
        "after the session has gone on.",
        generation_switches.set_state_names_its_generation,
        Scope(
            ((Open("s"), SetState("s", (81,)), SetState("s", (82,)), steps("s", 11)),), replicas=1, slow=1, timeouts=1
        ),
    ),
    Rule(
        "25c",
        "A state that is set begins a generation",
        "What follows does not continue what the session has consumed, so it has positions of its own. A client that "
        "does not know of the new state is told that the generation has changed.",
        generation_switches.set_states_make_a_generation,
        Scope(((Open("s"), steps("s", 11), SetState("s", (81,))),), replicas=1),
    ),
    Rule(
        "25d",
        "A generation keeps the TTL of the one before it",
        "Reset, SetState and carry-overs leave the session's TTL as it is, and a copy gets that of its source unless "
        "the fork asks for another.",
        generation_switches.generations_keep_the_ttl,
        Scope(((Open("s", TTL_MS), SetState("s", (81,))),), replicas=1),
    ),
)
