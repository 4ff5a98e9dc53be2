"""The rules of calls with several items. See rules.py."""

from __future__ import annotations

from tests.unit.core.counting_engine import POISON

from . import bulk_switches
from .rule import Rule
from .scope import CarryOver, Many, Open, Scope

OPENED = Many((Open("s"), Open("r")))

BULK = (
    Rule(
        "26a",
        "Each commit of a call has its own result",
        "Many commits go to the store in one call, which accepts some of them and not others. An item whose commit "
        "failed is decided again, and its neighbours are done.",
        bulk_switches.commits_have_their_own_results,
        Scope(((OPENED,), (Open("s"),)), commits_together=True, one_call=True, atomic_commits=True),
    ),
    Rule(
        "26b",
        "An item without a finite state fails alone",
        "The windows of many sessions are computed in one engine call. One whose state would not be finite is refused, "
        "and the others are carried over.",
        bulk_switches.rows_fail_alone,
        Scope(
            ((OPENED, Many((CarryOver("s", 2, (POISON,)), CarryOver("r", 2, (41,))))),),
            replicas=1,
            serves=(b"\1\2", b"\2"),
            one_call=True,
        ),
    ),
)
