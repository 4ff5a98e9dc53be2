"""Log output: text, or one JSON object per line, with a rate limit for each place in the code."""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
import time
from collections.abc import Callable, Hashable
from datetime import datetime, timezone
from threading import Lock
from typing import Any, TextIO

LINES_PER_SECOND = 5
"""From one place in the code: a client that makes the server log must not be able to fill its disk."""
SAID = "cellkeeper_service.said"
"""The logger of status messages: they go to stdout, whatever the log level."""


class PerSecond:
    """Lets at most `most` events of each key through per second and counts the rest. Keys are kept for ever, so there
    must be few. Safe to use from several threads."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = Lock()
        self._seen: dict[Hashable, list[int]] = {}  # the second, events admitted in it, events dropped since the last

    def admit(self, key: Hashable) -> int | None:
        """Returns None to drop the event, otherwise how many were dropped since the last one admitted."""
        with self._lock:
            now = int(self._clock())
            seen = self._seen.setdefault(key, [now, 0, 0])
            if seen[0] != now:
                seen[:2] = now, 0
            if seen[1] >= self._most:
                seen[2] += 1
                return None
            seen[1] += 1
            left_out, seen[2] = seen[2], 0
            return left_out


class Sparing(logging.Filter):
    """Lets LINES_PER_SECOND records through for each line of code and reason. The next one says how many it dropped."""

    def __init__(self) -> None:
        super().__init__()
        self._rate = PerSecond(LINES_PER_SECOND)

    def filter(self, record: logging.LogRecord) -> bool:
        left_out = self._rate.admit((record.pathname, record.lineno, fields_of(record).get("reason")))
        if left_out:
            record.fields = {**fields_of(record), "left_out": left_out}
        return left_out is not None


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time (UTC), level, logger, message, and the record's fields."""

    def format(self, record: logging.LogRecord) -> str:
        time_of_it = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time_of_it.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as text, with its fields after the message as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s%(behind)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.behind = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        return one_line(super().formatMessage(record))

    def formatException(self, error: Any) -> str:
        """Indents the traceback, so that none of its lines can be mistaken for a record."""
        return textwrap.indent(super().formatException(error), "  ")


class SaidFormatter(logging.Formatter):
    """Formats a record as its message alone."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(record.getMessage())


class Stream(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.10 cannot subscript it
    """Writes records to a stream. One that takes nothing, because its disk is full or its reader has gone, is no fault
    of the program: the server goes on without, and writes again when it can."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def one_line(text: str) -> str:
    """Escapes unprintable characters, so that a name or text from outside cannot forge a line of the log."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Returns what the caller passed as extra={"fields": ...}."""
    return getattr(record, "fields", {})


def open_streams() -> None:
    """Opens those of stdin, stdout and stderr that were closed when the program was started, as /dev/null. Call it
    first.

    Otherwise a connection would get the number of a closed one, and what libraries write to stderr would go to its
    peer.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # os.open returns the lowest number that is free, which is that of the closed one
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode))  # noqa: SIM115 - open as long as the program


def set_up(format: str = "text", level: str = "info") -> None:
    """Sends logs to stderr, and status messages to stdout. format, level: as the settings log_format and log_level."""
    as_json = format == "json"
    log = Stream(sys.stderr)
    log.setFormatter(JsonFormatter() if as_json else TextFormatter())
    log.addFilter(Sparing())
    logging.basicConfig(level=level.upper(), handlers=[log], force=True)
    said, logger = Stream(sys.stdout), logging.getLogger(SAID)
    said.setFormatter(JsonFormatter() if as_json else SaidFormatter())
    logger.handlers, logger.propagate = [said], False
    logger.setLevel(logging.INFO)


def say(text: str) -> None:
    """Writes a status message, one line, to stdout."""
    logger = logging.getLogger(SAID)
    if logger.handlers:
        logger.info(text)
    else:
        _write(sys.stdout, text)


def say_why_it_ends(text: str) -> None:
    """Writes why the program ends, one line, to stderr."""
    _write(sys.stderr, f"cellkeeper-server: {text}")


def _write(stream: TextIO, text: str) -> None:
    """Writes one line in one piece: workers share their streams, and `print` may write the newline apart from it (with
    PYTHONUNBUFFERED it does), so that lines of two of them would mingle."""
    stream.write(one_line(text) + "\n")
    stream.flush()
