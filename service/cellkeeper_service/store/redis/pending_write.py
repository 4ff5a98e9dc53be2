"""Writes begun on an idle connection: a script run whose first round an event loop waits for."""

from __future__ import annotations

from collections.abc import Callable

from cellkeeper_service.domain.non_blocking import Stage
from cellkeeper_service.domain.store import CommitResult
from cellkeeper_service.store.redis.exchange import Exchange
from cellkeeper_service.store.redis.script_run import ScriptRun


class PendingWrite:
    """A `PendingCommit` of domain/non_blocking.py. results: turns the run's answers into commit results."""

    def __init__(self, run: ScriptRun, exchange: Exchange, results: Callable[[ScriptRun], list[CommitResult]]) -> None:
        self._run = run
        self._exchange = exchange
        self._results = results

    def fileno(self) -> int:
        return self._exchange.fileno()

    @property
    def deadline(self) -> float:
        return self._exchange.deadline

    @property
    def stage(self) -> Stage:
        return self._exchange.stage

    def advance(self) -> Stage:
        return self._exchange.advance()

    def finish(self) -> list[CommitResult]:
        self._run.read(self._exchange.link, self._exchange.wire, self._exchange.replies())
        return self._results(self._run)
