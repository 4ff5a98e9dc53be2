"""What the program says: text for people, or a JSON object a line; at most so much a second from each place."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
import time
from collections.abc import Callable, Hashable
from datetime import datetime, timezone
from typing import Any

LINES_PER_SECOND = 5
"""From one place in the code. Who can make the server complain must not fill its disk."""
SAID = "cellkeeper_service.said"
"""The logger of what the program says about itself: on stdout, whatever the level."""


class PerSecond:
    """Lets `most` of each key through in a second, and counts the others. Keys are kept: there must be few."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._seen: dict[Hashable, list[int]] = {}  # the second, how many were let through in it, how many not since

    def admit(self, key: Hashable) -> int | None:
        """None: not this one. Otherwise how many before it were not."""
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
    """Lets LINES_PER_SECOND through from each line of code and for each reason. The next one tells how many were left
    out."""

    def __init__(self) -> None:
        super().__init__()
        self._rate = PerSecond(LINES_PER_SECOND)

    def filter(self, record: logging.LogRecord) -> bool:
        left_out = self._rate.admit((record.pathname, record.lineno, fields_of(record).get("reason")))
        if left_out:
            record.fields = {**fields_of(record), "left_out": left_out}
        return left_out is not None


class JsonFormatter(logging.Formatter):
    """One line: time (UTC), level, logger, message, and the record's fields."""

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
    """The record's fields stand behind the message, as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s%(behind)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.behind = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        return one_line(super().formatMessage(record))

    def formatException(self, error: Any) -> str:
        """Indented, so that no line of it can be taken for a record."""
        return textwrap.indent(super().formatException(error), "  ")


class SaidFormatter(logging.Formatter):
    """The message alone."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(record.getMessage())


def one_line(text: str) -> str:
    """What cannot be printed as its escape: whoever chooses a name or a text must not be able to write a line of his
    own."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as extra={"fields": ...}."""
    return getattr(record, "fields", {})


def set_up(format: str = "text", level: str = "info") -> None:
    """format, level: as the settings log_format and log_level. Logs go to stderr."""
    as_json = format == "json"
    log = logging.StreamHandler(sys.stderr)
    log.setFormatter(JsonFormatter() if as_json else TextFormatter())
    log.addFilter(Sparing())
    logging.basicConfig(level=level.upper(), handlers=[log], force=True)
    said, logger = logging.StreamHandler(sys.stdout), logging.getLogger(SAID)
    said.setFormatter(JsonFormatter() if as_json else SaidFormatter())
    logger.handlers, logger.propagate = [said], False
    logger.setLevel(logging.INFO)


def say(text: str) -> None:
    """One line on stdout."""
    logger = logging.getLogger(SAID)
    if logger.handlers:
        logger.info(text)
    else:
        print(one_line(text), file=sys.stdout, flush=True)
