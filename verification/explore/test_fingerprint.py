"""States with equal fingerprints have the same futures; otherwise the exploration would omit some."""

from __future__ import annotations

import random
from dataclasses import replace

from .fingerprint import fingerprint
from .scope import Delete, Fork, GetState, Open, Peek, Reset, Scope, steps
from .search import freeze, thaw
from .universe import Universe

SCOPE = Scope(
    (
        (
            Open("s"),
            steps("s", 11, 12, 13, window=2),
            Fork("s", "t"),
            steps("t", 13),
            Delete("t"),
            Fork("s", "t"),
            Reset("s"),
        ),
        (Open("s"), steps("s", 21)),
        (Peek("s", 91, 1), GetState("s")),
    ),
    slow=1,
    timeouts=1,
    unknowns=1,
    fall_backs=1,
    restarts=1,
    crashes=1,
    overdue=1,
    gone=1,
    atomic_reads=False,
)


def test_equal_fingerprints_have_equal_futures() -> None:
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    draw = random.Random(seed)
    futures: dict[tuple[Scope, int], object] = {}
    met_again = 0
    for number in range(48):
        scope = replace(SCOPE, frames=number % 2 == 0, power_cuts=number % 4 // 2 * 2, synced=number % 8 < 4)
        scope = replace(scope, one_call=scope.synced)
        universe = Universe(scope)
        for _ in range(draw.randint(5, 30)):
            events = universe.events()
            if not events:
                break
            universe.do(draw.choice(events[:3]))  # few choices, so that paths meet again
            mark = fingerprint(universe)
            future = {str(event): after(universe, event) for event in universe.events()}
            met_again += (scope, mark) in futures
            assert futures.setdefault((scope, mark), future) == future

    assert met_again > 20


def after(universe: Universe, event: tuple[object, ...]) -> int:
    copy = thaw(freeze(universe))
    copy.do(event)
    return fingerprint(copy)
