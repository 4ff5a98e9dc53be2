"""What is explored: the SMALL scopes in every run of the tests, entirely; the LARGE ones for as long as you like."""

from __future__ import annotations

from ..scope import Scope
from . import bulk, deadlines, expiries, frames, generations, power_cuts, reads, set_states, steps, versions

_NOUNS = (steps, generations, set_states, frames, power_cuts, reads, deadlines, expiries, versions, bulk)

SMALL: dict[str, Scope] = {name: scope for noun in _NOUNS for name, scope in noun.SMALL.items()}
LARGE: dict[str, Scope] = {name: scope for noun in _NOUNS for name, scope in noun.LARGE.items()}
