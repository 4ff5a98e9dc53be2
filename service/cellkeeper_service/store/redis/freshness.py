"""Whether what is known of the servers may be out of date."""

from __future__ import annotations


class Freshness:
    """Whether the servers must be asked again: at first, and after each doubt. Safe to use from several threads, and
    never waits.

    Every doubt is an object of its own, which an answer refers to. With a flag, an answer would also clear the doubts
    that came while it was on its way.
    """

    def __init__(self) -> None:
        self._doubt = object()
        self._answered: object = None

    @property
    def is_stale(self) -> bool:
        return self._answered is not self._doubt

    def doubt(self) -> None:
        """Notes that what is known may no longer be true."""
        self._doubt = object()

    def asking(self) -> object:
        """Returns what to pass to `answered`. Call it before the servers are asked."""
        return self._doubt

    def answered(self, asking: object) -> None:
        """Notes that an answer was adopted: call it last, once other threads can see what the answer says."""
        self._answered = asking
