"""One finding of the doctor, printed as a line."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """The result of one check.

    level: "ok", "warn", "fail" or "skip". place: an endpoint or a URL; "": all of them. what: "TLS", "model" ...
    advice: what to do, if anything.
    """

    level: str
    place: str
    what: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        where = f"{self.place} " if self.place else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.level:<4}  {where}{self.what}: {self.text}{advice}".replace("\n", " ")


def ok(place: str, what: str, text: str) -> Finding:
    return Finding("ok", place, what, text)


def warn(place: str, what: str, text: str, advice: str) -> Finding:
    return Finding("warn", place, what, text, advice)


def fail(place: str, what: str, text: str, advice: str) -> Finding:
    return Finding("fail", place, what, text, advice)
