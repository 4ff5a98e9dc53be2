"""Each rule of the protocol is needed in the new core too: see test_rules.py."""

from __future__ import annotations

import pytest

from .core_rules import CORE_RULES
from .rules import Rule
from .search import explore, replay
from .story import story

each = pytest.mark.parametrize("rule", CORE_RULES, ids=[rule.number for rule in CORE_RULES])


@each
def test_each_rule_is_needed(rule: Rule) -> None:
    with rule.off():
        found = explore(rule.scope, max_states=20_000, begin=rule.begin)
    assert found.counterexample is not None, f"nothing breaks without rule {rule.number}: {rule.text}"
    events = found.counterexample.events
    with rule.off():
        assert story(rule.scope, events)[-1] == f"=> {found.counterexample.why}"
    assert replay(rule.scope, events) is None, "the same history breaks something with the rule on"


@each
def test_with_the_rule_its_scope_holds(rule: Rule) -> None:
    found = explore(rule.scope, max_states=600, begin=rule.begin)
    assert found.counterexample is None, "\n".join(story(rule.scope, found.counterexample.events))
    assert found.complete or found.states >= 600
