"""`make bench-one-session` runs, and its ratio matches the figures above it."""

from __future__ import annotations

import pytest

from bench.one_session import SESSIONS, main, table


def test_the_table() -> None:
    lines = table({8: {"free": [1000.0] * 5, "one": [400.0] * 5}}).splitlines()
    assert lines[-3:] == [
        "| 1x8, a free batch | " + " | ".join(["1,000"] * 5) + " |",
        "| 1x8, one session a call | " + " | ".join(["400"] * 5) + " |",
        "| 1x8, free beside one | " + " | ".join(["2.5x"] * 5) + " |",
    ]


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--hidden", "4", "--rounds", "1", "--seconds", "0.001"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(line.count("|") == len(SESSIONS) + 2 for line in lines)
