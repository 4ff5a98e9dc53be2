"""Rollouts: forecasts, whose inputs are the model's own predictions. A rollout is a peek that goes on."""

from __future__ import annotations

from dataclasses import dataclass

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.errors import Rejection, invalid


@dataclass(frozen=True, slots=True)
class Rollout:
    """`steps` time steps behind a chunk, steps >= 1. known: [steps, features that the caller supplies]."""

    steps: int
    known: Array


def cannot_roll_out(steps: int) -> Rejection:
    """For a model that does not say what becomes of its predictions."""
    expected = (
        'none, or a model whose config.json has "feedback": for each input feature the index of the predicted value '
        'that it becomes, or "known"; for token ids "argmax", with one predicted value for each id'
    )
    return invalid("rollout_steps", steps, expected)
