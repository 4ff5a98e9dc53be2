"""What both ways of tracing a module share: the example of its input, and the export of one time step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellkeeper_service.model.fields import one_line

from ..processing import Processing
from ..proof import Source
from ..refusal import ImportRefused
from ..stack import Array
from .program import INPUT, quiet

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

BATCH = 11  # of the trace; a size that layers seldom have
RECIPE = "docs/models.md, Modules with a forward of their own"


@dataclass(frozen=True)
class Traced:
    """program: (*inputs [B, ...], *states) -> (*outputs [B, ...], *states). initial: of a new session, without the
    batch. inputs: their names, or INPUT alone. step_shape: of a time step of the one input, where that has several
    axes."""

    program: ExportedProgram
    states: tuple[str, ...]
    outputs: tuple[str, ...]
    initial: Mapping[str, Array]
    source: Source
    inputs: tuple[str, ...] = (INPUT,)
    step_shape: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class WatchedCall:
    """A recurrent layer as a model calls it.

    steps: how many time steps it takes; 0 for a cell. given: the tensors of the state that the model hands it, if any.
    zeros: those of its own first state. batch_axis, suffixes: of these tensors, and what their names end with.
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
        """What it begins with."""
        return self.given or self.zeros


Watch = Callable[[Any, Callable[[WatchedCall], "tuple[Tensor, ...] | None"], list[Any]], AbstractContextManager[None]]


def rows(x: Tensor, axis: int | None) -> Tensor:
    """One time step [BATCH, ...], at random around nothing: what a trace is made with."""
    import torch

    shape = (BATCH, *x.shape[1 if axis is None else 2 :])
    return (
        torch.zeros(shape, dtype=x.dtype)
        if not x.is_floating_point()
        else torch.linspace(-1, 1, shape[0] * max(1, int(np.prod(shape[1:])))).reshape(shape)
    )


def step_shape(first: Sequence[Tensor], processing: Processing) -> tuple[int, ...] | None:
    """Of Traced. first: as of `rows`, of each input. Raises ImportRefused."""
    shape = tuple(int(size) for size in first[0].shape[1:])
    if len(first) > 1 or len(shape) < 2:
        return None
    if processing.normalization is not None:
        raise ImportRefused(
            "normalization",
            f"got one for time steps of shape {list(shape)}, expected it within the model: it is by feature",
        )
    return shape


def spread(value: Tensor, axis: int, batch: int) -> Tensor:
    """The first session's state, for `batch` sessions."""
    return value.narrow(axis, 0, 1).repeat_interleave(batch, axis).clone()


def exported(step: Any, arguments: tuple[Tensor, ...], axes: Sequence[int], place: str) -> ExportedProgram:
    """arguments: inputs, whose batch is their first axis, and states, whose batch is at `axes`."""
    import torch

    batch = torch.export.Dim("batch")
    shapes = (tuple({axis: batch} for axis in (*[0] * (len(arguments) - len(axes)), *axes)),)
    try:
        with quiet():
            return torch.export.export(step.eval(), arguments, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise ImportRefused(
            place,
            "torch.export cannot trace one time step of it; take branches on values, loops over time and a fixed batch "
            f"out of its forward: {RECIPE} ({one_line(str(error))[:120]})",
        ) from error
