"""Switches that turn off the rules of calls that make a generation. See switches.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from cellkeeper_service.core import carry_over, lifecycle
from cellkeeper_service.core.generation_requests import Reset, SetState
from cellkeeper_service.core.lifecycle import NewGeneration
from cellkeeper_service.domain.record import Header


@contextmanager
def calls_are_recognized() -> Iterator[None]:
    """Decides a call that is sent again like any other."""
    with (
        patch.object(lifecycle, "done_before", lambda standing, request: None),
        patch.object(carry_over, "done_before", lambda standing, request: None),
    ):
        yield


def set_state_names_its_generation() -> AbstractContextManager[Any]:
    start_over = lifecycle.start_over

    def whatever_stands(standing: Header | None, request: Reset | SetState, models: Any, new: NewGeneration) -> Any:
        if standing is not None and isinstance(request, SetState):
            request = replace(request, generation=standing.position.generation)
        return start_over(standing, request, models, new)

    return patch.object(lifecycle, "start_over", whatever_stands)


def set_states_make_a_generation() -> AbstractContextManager[Any]:
    """Sets the state at the position that stands."""
    start_over = lifecycle.start_over

    def in_place(standing: Header | None, request: Reset | SetState, models: Any, new: NewGeneration) -> Any:
        if standing is None or isinstance(request, Reset):
            return start_over(standing, request, models, new)
        with patch.object(lifecycle, "first_position", lambda generation, step: standing.position):
            return start_over(standing, request, models, new)

    return patch.object(lifecycle, "start_over", in_place)


def generations_keep_the_ttl() -> AbstractContextManager[Any]:
    """Gives a generation that follows another the TTL of a new session."""
    return patch.object(lifecycle, "ttl_of_next", lambda standing, default_ttl_ms: default_ttl_ms)
