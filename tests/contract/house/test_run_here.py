"""What a command of the server changes in the tests' own process ends with its test."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


def disposition() -> list[Any]:
    return [*map(signal.getsignal, SIGNALS), signal.pthread_sigmask(signal.SIG_BLOCK, ())]


@pytest.fixture
def signals_kept() -> Iterator[None]:
    """Set up first, and so torn down last."""
    before = disposition()
    yield
    assert disposition() == before


def test_the_signals_are_as_before(
    signals_kept: None, run_here: Callable[[list[str]], int], capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a later test's Ctrl-C ends the tests."""
    assert run_here(["serve", "nowhere", "--metrics-listen=127.0.0.1:0"]) == 1
    assert "nowhere" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
