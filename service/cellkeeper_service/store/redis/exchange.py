"""Sends commands on an idle connection and reads their replies without waiting."""

from __future__ import annotations

from time import monotonic
from typing import Any

import redis

from cellkeeper_service.domain.non_blocking import Stage
from cellkeeper_service.store.redis.failures import Unknown, text_of
from cellkeeper_service.store.redis.link import Link
from cellkeeper_service.store.redis.wire import Wire


class Exchange:
    """One exchange, which sends the commands, already packed, when it is constructed.

    The caller must call `replies`. Until then the exchange owns the connection and keeps it open, even after an error,
    so that an event loop can stop watching it first.

    An error reply makes it BLOCKED, because handling the error may have to wait; so does a socket that accepts only
    part of the commands.
    """

    def __init__(self, link: Link, wire: Wire, commands: list[bytes]) -> None:
        self.link = link
        self.stage = Stage.WAITING
        self.wire = wire
        self._count = len(commands)
        self._replies: list[Any] = []
        self._error: Exception = redis.exceptions.TimeoutError("timeout")
        self._unsent: memoryview | bytes = b""
        self.deadline = monotonic() + link.timeout_s
        data = b"".join(commands)
        try:
            sent = wire.write(data)
        except OSError as error:
            self._error, self.stage = error, Stage.DONE
            return
        if sent < len(data):
            self._unsent, self.stage = memoryview(data)[sent:], Stage.BLOCKED

    def fileno(self) -> int:
        return self.wire.fileno()

    def advance(self) -> Stage:
        """Reads the bytes that have arrived, and returns the new stage."""
        if self.stage is not Stage.WAITING:
            return self.stage
        try:
            replies = self.wire.read(self._count - len(self._replies))
        except (redis.RedisError, OSError, ValueError) as error:  # (ValueError: an error reply that is not UTF-8)
            self._error, self.stage = error, Stage.DONE
            return self.stage
        if replies is not None:
            self._replies += replies
            self.deadline = monotonic() + self.link.timeout_s
            if len(self._replies) == self._count:
                failed = any(isinstance(reply, Exception) for reply in self._replies)
                self.stage = Stage.BLOCKED if failed else Stage.DONE
        return self.stage

    def replies(self) -> list[Any]:
        """Returns one reply for each command: an error reply as an exception, Unknown for one that did not come.

        Waits only when BLOCKED. Hands the connection back, or closes it if a reply may still be on its way.
        """
        if self._unsent:
            return self._rest()
        missing = self._count - len(self._replies)
        if missing:
            self._replies += [Unknown(f"Redis did not answer: {text_of(self._error)}")] * missing
        self.link.put_back(self.wire, dirty=missing > 0 or not self.wire.clean)
        return self._replies

    def _rest(self) -> list[Any]:
        """Sends the rest of the commands and waits for the replies."""
        try:
            self.wire.write_all(self._unsent)
        except OSError as error:
            self.link.put_back(self.wire, dirty=True)
            return [Unknown(f"Redis did not answer: {text_of(error)}")] * self._count
        return self.link.sent(self.wire, self._count).replies()
