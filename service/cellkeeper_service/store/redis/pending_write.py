"""Writes begun on an idle connection: a script run whose first round an event loop waits for."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import redis

from cellkeeper_service.domain.non_blocking import Stage
from cellkeeper_service.domain.store import CommitResult

from .failures import Unknown, text_of
from .link import Link, Sent
from .script_run import ScriptRun
from .wire import Wire


class PendingWrite:
    """A `PendingCommit` of domain/non_blocking.py, which sends the run's first round when it is constructed.

    Until `finish` it owns the connection and keeps it open, even after an error, so that an event loop can stop
    watching it first. An error reply makes it BLOCKED, because handling the error may have to wait; so does a socket
    that accepts only part of the commands.
    """

    def __init__(
        self, run: ScriptRun, link: Link, wire: Wire, results: Callable[[ScriptRun], list[CommitResult]]
    ) -> None:
        """results: turns the run's answers into commit results."""
        self.stage = Stage.WAITING
        self._run = run
        self._link = link
        self._wire = wire
        self._results = results
        self._replies: list[Any] = []
        self._error: Exception = redis.exceptions.TimeoutError("timeout")
        self._unsent: memoryview | bytes = b""
        commands = run.begin(link, wire)
        self._count, data = len(commands), b"".join(commands)
        self.deadline = monotonic() + link.timeout_s
        try:
            sent = wire.write(data)
        except OSError as error:
            self._error, self.stage = error, Stage.DONE
            return
        if sent < len(data):
            self._unsent, self.stage = memoryview(data)[sent:], Stage.BLOCKED

    def fileno(self) -> int:
        return self._wire.fileno()

    def advance(self) -> Stage:
        """Reads the bytes that have arrived, and returns the new stage."""
        if self.stage is not Stage.WAITING:
            return self.stage
        try:
            replies = self._wire.read(self._count - len(self._replies))
        except (redis.RedisError, OSError, ValueError) as error:  # (ValueError: an error reply that is not UTF-8)
            self._error, self.stage = error, Stage.DONE
            return self.stage
        if replies is not None:
            self._replies += replies
            self.deadline = monotonic() + self._link.timeout_s
            if len(self._replies) == self._count:
                failed = any(isinstance(reply, Exception) for reply in self._replies)
                self.stage = Stage.BLOCKED if failed else Stage.DONE
        return self.stage

    def finish(self) -> list[CommitResult]:
        """Hands the connection back, or closes it if a reply may still be on its way."""
        if self._unsent:
            replies = self._rest()
        else:
            missing = self._count - len(self._replies)
            replies = self._replies + [Unknown(f"Redis did not answer: {text_of(self._error)}")] * missing
            self._link.put_back(self._wire, dirty=missing > 0 or not self._wire.clean)
        self._run.read(self._link, self._wire, replies)
        return self._results(self._run)

    def _rest(self) -> list[Any]:
        """Sends the rest of the commands and waits for one reply to each."""
        try:
            self._wire.write_all(self._unsent)
        except OSError as error:
            self._link.put_back(self._wire, dirty=True)
            return [Unknown(f"Redis did not answer: {text_of(error)}")] * self._count
        return Sent(self._link, self._wire, self._count).replies()
