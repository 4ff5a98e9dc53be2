"""A rule of the protocol, with the switch that turns it off."""

from __future__ import annotations

from dataclasses import dataclass

from .events import Event
from .scope import Scope
from .switches import Switch


@dataclass(frozen=True)
class Rule:
    """A rule of the protocol.

    title: what holds. text: what the rule says and why, in one or two sentences. off: switches it off while entered.
    scope: where its absence shows. begin: how its histories start, if there are too many to explore them all.
    """

    number: str
    title: str
    text: str
    off: Switch
    scope: Scope
    begin: tuple[Event, ...] = ()
