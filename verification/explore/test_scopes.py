"""Every interleaving of small scopes, and a few random histories of larger ones, keep every promise.

invariants.py lists what is checked. `python -m verification.explore` explores for as long as you like.
"""

from __future__ import annotations

import random
import time

import pytest
from cellkeeper._session.history import History

from .drawn import drawn
from .scope import Scope
from .scopes import SMALL
from .search import ENDLESS, explore, shrink, walk
from .story import story


@pytest.mark.parametrize("scope", SMALL.values(), ids=list(SMALL))
def test_every_history_of_a_small_scope(scope: Scope) -> None:
    found = explore(scope, max_states=20_000)
    assert found.counterexample is None, "\n".join(story(scope, found.counterexample.events))
    assert found.complete
    assert found.histories


def test_a_client_that_sends_the_same_for_ever_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It replays nothing after a loss, so that it meets the same gap again and again, and breaks no other promise."""
    monkeypatch.setattr(History, "_reopen", lambda history, step: 0)
    found = explore(SMALL["2 steps, window 1, a tail lost"], max_states=20_000)
    assert found.counterexample is not None
    assert found.counterexample.why == ENDLESS


def test_drawn_histories_of_larger_scopes() -> None:
    first = random.SystemRandom().randrange(10**9)
    print(f"seeds from {first} on")
    end = time.monotonic() + 4.0
    seed = first
    while time.monotonic() < end:
        draw = random.Random(seed)
        scope = drawn(draw)
        counterexample = walk(scope, draw)
        if counterexample is not None:
            counterexample = shrink(scope, counterexample)
            pytest.fail(f"seed {seed}, {scope}:\n" + "\n".join(story(scope, counterexample.events)))
        seed += 1
    assert seed > first
