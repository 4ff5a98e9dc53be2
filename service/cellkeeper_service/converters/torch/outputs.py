"""What a forward over sequences returns: which of its tensors are outputs, and where their time steps are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any

import numpy as np
from torch import Tensor

from ..refusal import ImportRefused
from ..stack import Array

BATCH = 11  # of the trace; a size that layers rarely have
RECIPE = "docs/models.md, Modules with a forward of their own"
_SQUEEZE = "; squeeze() without an axis also drops a time axis of length 1, squeeze(-1) does not"


class Steps(Enum):
    """The time steps of an output."""

    ALL = auto()  # [T, B, ...] or [B, T, ...], like the input
    JOINED = auto()  # [T * B, ...] or [B * T, ...]: its forward joins both axes, as for a head
    LAST = auto()  # [B, ...]: the last one


def outputs_of(given: Mapping[int, Sequence[Any]], axis: int, place: str) -> dict[int, Steps]:
    """Returns the indices of the outputs. Raises ImportRefused.

    given: the tensors that a forward returns for BATCH sequences, by their length, of which there are several. axis:
    that of time in the inputs.

    The first tensor is an output. So are those others with every time step and, if the first has the last one only,
    those with the last one. What remains are states.
    """
    kept: dict[int, Steps] = {}
    for index, values in enumerate(zip(*given.values(), strict=False)):
        shapes = [tuple(getattr(value, "shape", ())) for value in values]
        steps = _steps([*given], shapes, axis)
        if index == 0 and steps is None:
            raise ImportRefused(place, f"{_returned(values, shapes, [*given])}: {RECIPE}")
        if steps is not None and (steps is not Steps.LAST or kept.get(0, steps) is Steps.LAST):
            kept[index] = steps
    if not kept:
        raise ImportRefused(place, f"returns nothing, expected an output: {RECIPE}")
    return kept


def _steps(lengths: Sequence[int], shapes: Sequence[tuple[int, ...]], axis: int) -> Steps | None:
    if all(len(shape) > 1 and shape[axis] == steps for shape, steps in zip(shapes, lengths, strict=True)):
        return Steps.ALL if shapes[0][1 - axis] == BATCH else None
    if all(shape[:1] == (steps * BATCH,) for shape, steps in zip(shapes, lengths, strict=True)):
        return Steps.JOINED
    return Steps.LAST if len(set(shapes)) == 1 and shapes[0][:1] == (BATCH,) else None


def not_a_tensor(value: object) -> str:
    """Says that a forward returns something else."""
    return f"returns {type(value).__name__}, expected tensors; return those that it consists of"


def _returned(values: Sequence[Any], shapes: Sequence[tuple[int, ...]], lengths: Sequence[int]) -> str:
    if not hasattr(values[0], "shape"):
        return not_a_tensor(values[0])
    hint = _SQUEEZE if len(set(map(len, shapes))) > 1 else ""
    return (
        f"returns {[list(shape) for shape in shapes]} for {list(lengths)} time steps of {BATCH} sequences, expected an "
        f"output for each time step, or for the last one{hint}"
    )


def of_one_step(value: Tensor, steps: Steps, axis: int | None) -> Tensor:
    """Returns [B, ...] of an output of a call with one time step. axis: that of time in the inputs, if any."""
    return value.squeeze(axis) if steps is Steps.ALL and axis is not None else value


def of_sequence(value: Tensor, steps: Steps, axis: int, length: int, row: int = 0, batch: int = 1) -> Array:
    """Returns [length, ...] of one sequence of a batch; NaN at the time steps that the output does not have."""
    if steps is Steps.JOINED:
        value = value.reshape(*((length, batch) if axis == 0 else (batch, length)), *value.shape[1:])
    if steps is not Steps.LAST:
        return np.asarray(value.select(1 - axis, row).float().numpy())
    result = np.full((length, *value.shape[1:]), np.nan)
    result[-1] = value[row].float().numpy()
    return result
