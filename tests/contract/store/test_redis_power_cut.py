"""A power cut while Redis writes to its append-only file: docs/adr/203."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle, pairwise

import pytest

from tests.contract.store.redis_power_cuts import (
    History,
    Layout,
    Second,
    keeps_half_transactions,
    violations,
    write_history,
)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return write_history(Layout.NEW, tmp_path_factory.mktemp("new"))


@pytest.fixture(scope="module")
def old_history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return write_history(Layout.OLD, tmp_path_factory.mktemp("old"))


def cuts(history: History) -> Iterator[int]:
    """Yields each command's first byte, one in its middle and its last: Redis's repair depends on these."""
    starts = [*history.commands, len(history.file)]
    for start, end in pairwise(starts):
        yield from (start, start + 1, (start + end) // 2, end - 1)


def test_no_cut_damages_a_record_or_loses_what_was_acknowledged(history: History) -> None:
    """Every fourth of the places that matter, each with one kind of second run in turn. The test below runs all."""
    wrong = []
    for number, (cut, second) in enumerate(zip(cuts(history), cycle(Second), strict=False)):
        if number % 4 == number // 4 % 4:
            wrong += violations(history, cut, second)
    assert wrong == []


@pytest.mark.fire
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("second", Second)
def test_every_byte(history: History, second: Second) -> None:
    wrong = []
    for cut in range(history.cuts_from, len(history.file) + 1):
        wrong += violations(history, cut, second)
    assert wrong == []


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (Second.ONE_SESSION, "cannot be read.*damaged"),
        (Second.EVERYTHING, "damaged.*run 2 acknowledged"),
        (Second.EVERYTHING, "has a TTL that its header does not ask for"),
    ],
)
def test_the_layout_before_is_damaged(old_history: History, second: Second, text: str) -> None:
    """Shows what was wrong with it, and that these tests detect it."""
    if not keeps_half_transactions():
        pytest.skip("this server does not do what was wrong")
    found = (one for cut in cuts(old_history) for one in violations(old_history, cut, second))
    assert any(re.search(text, one) for one in found)
