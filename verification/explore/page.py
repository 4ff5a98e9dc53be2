"""docs/rules.md: each rule of the protocol, and the shortest history that breaks a promise without it."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

from .rule import Rule
from .rules import RULES
from .search import Found, explore
from .story import story

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"
COMMAND = "python -m verification.explore --rules > docs/rules.md"
MAX_STATES = 60_000

PREFACE = f"""\
# What each rule of the protocol is for

Each section switches one rule off, in a test only, and shows the shortest history in which that breaks a promise.
`verification/explore/test_rules.py` finds these histories in every run of the tests, finds nothing with the rule on,
and fails if this page is stale. The page is made by

    {COMMAND}

In the histories, `c0` and `c1` are clients, `A` and `B` are replicas, `s`, `r` and `t` are sessions. `s[0]=11` is the
chunk of session `s` that continues it at step 0 with the input 11. `g01:2 [11, 12]` is a position: generation 1,
step 2, reached by these inputs; `12'` is an input that version 2 of the model has consumed. Rules 18a to 18h and 24a to
24c are about the lists in Redis, their TTLs and power cuts ([why](adr/203-one-write-a-record.md)).
"""


def without(rule: Rule) -> Found:
    """Searches for the shortest history that breaks a promise without the rule."""
    with rule.off():
        return explore(rule.scope, max_states=MAX_STATES, shortest=True, begin=rule.begin)


def section(rule: Rule, found: Found) -> str:
    """Returns the page's section on this rule. found: by `without`. Raises LookupError if it has no counterexample."""
    if found.counterexample is None:
        raise LookupError(f"nothing breaks without rule {rule.number}: {rule.title}")
    with rule.off():
        *events, broken = story(rule.scope, found.counterexample.events)
    lines = [
        f"## {rule.number}. {rule.title}",
        "",
        *wrap(rule.text, 120),
        "",
        f"Without it: **{broken.removeprefix('=> ')}** ({len(events)} events, {found.states} states explored)",
        "",
        *(f"{number}. {event}" for number, event in enumerate(events, 1)),
        "",
    ]
    return "\n".join(lines)


def page() -> str:
    """Returns the whole page. Raises LookupError if a rule is not needed."""
    return "\n".join([PREFACE, *(section(rule, without(rule)) for rule in RULES)])
