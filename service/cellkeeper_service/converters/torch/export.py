"""What both ways of tracing a module share: the example input, the export of one time step, and its import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellkeeper_service.model.fields import one_line

from ..imported import Imported, Target
from ..processing import Processed, Processing
from ..proof import Source
from ..refusal import ImportRefused
from ..stack import Array
from .program import INPUT, import_program, quiet

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

BATCH = 11  # of the trace; a size that layers rarely have
_FIXED = "specialized it to be a constant"  # what torch.export says if code turned the batch into a number
RECIPE = "docs/models.md, Modules with a forward of their own"


@dataclass(frozen=True)
class Traced:
    """A traced module.

    program: (*inputs [B, ...], *states) -> (*outputs [B, ...], *states).
    initial: states of a new session, without the batch axis.
    inputs: their names, or INPUT alone.
    step_shape: of a time step, if there is one input and it has several axes.
    """

    program: ExportedProgram
    states: tuple[str, ...]
    outputs: tuple[str, ...]
    initial: Mapping[str, Array]
    source: Source
    inputs: tuple[str, ...] = (INPUT,)
    step_shape: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class WatchedCall:
    """One call of a recurrent layer by its model.

    steps: how many time steps it takes; 0 for a cell.
    given: the state's tensors that the model passes to it, if any.
    zeros: the tensors of its own initial state.
    batch_axis, suffixes: of these tensors, and the endings of their names.
    """

    name: str
    kind: str
    steps: int
    given: tuple[Tensor, ...]
    zeros: tuple[Tensor, ...]
    batch_axis: int
    suffixes: tuple[str, ...]

    @property
    def start(self) -> tuple[Tensor, ...]:
        """The state that the call starts with."""
        return self.given or self.zeros


Watch = Callable[[Any, Callable[[WatchedCall], "tuple[Tensor, ...] | None"], list[Any]], AbstractContextManager[None]]


def import_traced(
    traced: Traced, target: Target, processing: Processing, place: str, vocabulary: int | Mapping[str, int]
) -> Imported:
    """Converts a traced module to a bundle. vocabulary: by name if there are several inputs."""
    return import_program(
        traced.program,
        target,
        place=place,
        states=traced.states,
        inputs=traced.inputs,
        outputs=traced.outputs,
        initial=traced.initial,
        step_shape=traced.step_shape,
        source=lambda *_: Processed(traced.source, processing),
        vocabulary=vocabulary,
    )


def rows(x: Tensor, axis: int | None) -> Tensor:
    """Returns one time step [BATCH, ...] for a trace: zeros for ids, else numbers from -1 to 1."""
    import torch

    shape = (BATCH, *x.shape[1 if axis is None else 2 :])
    return (
        torch.zeros(shape, dtype=x.dtype)
        if not x.is_floating_point()
        else torch.linspace(-1, 1, shape[0] * max(1, int(np.prod(shape[1:])))).reshape(shape)
    )


def step_shape(first: Sequence[Tensor], processing: Processing) -> tuple[int, ...] | None:
    """Returns Traced.step_shape. first: from `rows`, for each input. Raises ImportRefused."""
    shape = tuple(int(size) for size in first[0].shape[1:])
    if len(first) > 1 or len(shape) < 2:
        return None
    if processing.normalization is not None:
        raise ImportRefused(
            "normalization",
            f"got one for time steps of shape {list(shape)}, expected it within the model: it works by feature",
        )
    return shape


def spread(value: Tensor, axis: int, batch: int) -> Tensor:
    """Repeats the first session's state for `batch` sessions."""
    return value.narrow(axis, 0, 1).repeat_interleave(batch, axis).clone()


def exported(step: Any, arguments: tuple[Tensor, ...], axes: Sequence[int], place: str) -> ExportedProgram:
    """Exports one time step. arguments: inputs, with the batch as first axis, and states, with the batch at `axes`.
    Raises ImportRefused."""
    import torch

    batch = torch.export.Dim("batch")
    shapes = (tuple({axis: batch} for axis in (*[0] * (len(arguments) - len(axes)), *axes)),)
    try:
        with quiet():
            return torch.export.export(step.eval(), arguments, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # the user's code may raise anything
        if _FIXED in str(error):
            raise ImportRefused(
                place, f"its forward fixes the size of the batch, by a number or len(x); use x.shape[0]: {RECIPE}"
            ) from error
        raise ImportRefused(
            place,
            "torch.export cannot trace one time step of it; remove branches on values, loops over time and a fixed "
            f"batch from its forward: {RECIPE} ({one_line(str(error))[:120]})",
        ) from error
