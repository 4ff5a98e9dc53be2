"""Each rule of the protocol is needed: without any one of them a promise breaks, and the exploration finds it.

With the rule on, the same scope holds. docs/rules.md shows the histories, and these tests keep it up to date.
"""

from __future__ import annotations

import pytest

from .page import COMMAND, PAGE, PREFACE, section, without
from .rule import Rule
from .rules import RULES
from .search import explore, replay
from .story import story

each = pytest.mark.parametrize("rule", RULES, ids=[rule.number for rule in RULES])
STALE = f"docs/rules.md is stale; make it again: {COMMAND}"


def written() -> list[str]:
    """Returns the page's preface and its sections."""
    preface, *sections = PAGE.read_text().split("\n## ")
    return [preface, *(f"## {one.rstrip()}\n" for one in sections)]


@each
def test_each_rule_is_needed(rule: Rule) -> None:
    found = without(rule)
    assert found.counterexample is not None, f"nothing breaks without rule {rule.number}: {rule.title}"
    events = found.counterexample.events
    with rule.off():
        assert story(rule.scope, events)[-1] == f"=> {found.counterexample.why}"
    assert replay(rule.scope, events) is None, "the same history breaks something with the rule on"
    assert section(rule, found) in written(), STALE


@each
def test_with_the_rule_its_scope_holds(rule: Rule) -> None:
    found = explore(rule.scope, max_states=600, begin=rule.begin)
    assert found.counterexample is None, "\n".join(story(rule.scope, found.counterexample.events))
    assert found.complete or found.states >= 600


def test_the_page_has_every_rule_once() -> None:
    preface, *sections = written()
    assert preface == PREFACE, STALE
    headings = [one.splitlines()[0] for one in sections]
    assert headings == [f"## {rule.number}. {rule.title}" for rule in RULES], STALE
